"""Every wheel: what it asks for, what it holds, and that it works when installed alone."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The architecture's table, and the direct imports that it leaves to its neighbours:
# `spt-data` handles the PIL images and arrays that torchvision and datasets hand out,
# `spt-methods` opens torchvision models, `spt-manager` saves torch checkpoints and reads
# OmegaConf configurations and NumPy's random state, and moves torchdata's loaders; `spt-jax` saves
# with Orbax and shows progress with rich. What a package imports, it declares.
REQUIREMENTS = {
    "spt-losses": "torch",
    "spt-optim": "torch",
    "spt-augment": "torch kornia",
    "spt-data": "torch torchvision datasets lightning torchdata loguru numpy pillow",
    "spt-registry": "click rich pandas pyarrow pyyaml numpy loguru",
    "spt-callbacks": "torch lightning torchmetrics loguru rich spt-optim",
    "spt-methods": "torch torchvision lightning timm torchmetrics loguru"
    " spt-losses spt-optim spt-augment spt-callbacks",
    "spt-manager": "torch numpy lightning torchdata hydra-core omegaconf loguru rich"
    " spt-registry spt-callbacks",
    "spt-jax": "jax flax optax orbax-checkpoint numpy loguru rich spt-registry",
    "stable-pretraining": "click spt-losses spt-optim spt-augment spt-data spt-registry"
    " spt-callbacks spt-methods spt-manager",
}
EXTRAS = {
    "spt-data": {"lance", "video"},
    "spt-registry": {"lightning", "web"},
    "spt-callbacks": {"sklearn", "viz", "hf", "wandb", "monitor"},
    "spt-methods": {"hf"},
    "spt-manager": {"slurm", "wandb", "trackio", "swanlab"},
    "spt-jax": {"wandb", "trackio", "swanlab", "tensorboard"},
    "stable-pretraining": {
        "all", "jax", "vision", "tracking", "cluster", "visualization", "datasets", "dev", "doc",
    },
}  # fmt: skip
DATA = {
    "spt-data": r"spt_data/sample_data/.*(train|test).*\.parquet$",
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def dist(tmp_path_factory) -> Path:
    """A folder with the ten wheels."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, ROOT / "tools" / "build_wheels.py", "--out", out], check=True)
    return out


def wheel_of(dist: Path, package: str) -> zipfile.ZipFile:
    (path,) = dist.glob(f"{package.replace('-', '_')}-*.whl")
    return zipfile.ZipFile(path)


def metadata_of(wheel: zipfile.ZipFile):
    (name,) = (entry for entry in wheel.namelist() if entry.endswith(".dist-info/METADATA"))
    return HeaderParser().parsestr(wheel.read(name).decode())


def test_ten_wheels_are_built(dist):
    assert len(list(dist.glob("*.whl"))) == len(REQUIREMENTS) == 10


@pytest.mark.parametrize("package", REQUIREMENTS)
def test_metadata_names_the_dependencies_of_the_table(dist, package):
    metadata = metadata_of(wheel_of(dist, package))
    required = metadata.get_all("Requires-Dist") or []
    always = {re.match(r"[\w.-]+", line)[0] for line in required if "extra ==" not in line}
    assert always == set(REQUIREMENTS[package].split())
    assert set(metadata.get_all("Provides-Extra") or []) == EXTRAS.get(package, set())
    for line in required:
        assert " @ " not in line, f"{package} publishes a path: {line}"
        if re.match(r"spt-|stable-pretraining(?!\[)", line):
            assert ">=" in line, f"{package} has no compatible range: {line}"
            assert "<" in line, f"{package} has no compatible range: {line}"
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.10"


@pytest.mark.parametrize("package", REQUIREMENTS)
def test_a_wheel_holds_types_licence_and_data_and_no_tests(dist, package):
    names = wheel_of(dist, package).namelist()
    module = package.replace("-", "_")
    assert f"{module}/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [
        name
        for name in names
        if "test" in name.lower() and not re.search(DATA.get(package, "$^"), name)
    ]
    if package in DATA:
        assert len([name for name in names if re.search(DATA[package], name)]) == 2


def readme_program(package: str) -> str:
    """All Python blocks of a package's README, as one program."""
    text = (ROOT / "packages" / package / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks, f"the README of {package} shows no Python"
    return "\n".join(blocks)


def install(dist: Path, target: Path, requirement: str) -> Path:
    """Make an empty environment and install one requirement of ours into it."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    assert uv, "uv is not installed"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, target], check=True)
    python = target / "bin" / "python"
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--python", python, "--find-links", dist, requirement],
        check=True,
    )
    return python


@pytest.mark.slow
@pytest.mark.parametrize("package", ["spt-registry", "spt-losses", "spt-optim"])
def test_a_wheel_alone_runs_its_readme(dist, package, tmp_path, run_python):
    python = install(dist, tmp_path / "env", package)
    module = package.replace("-", "_")
    (tmp_path / "work").mkdir()
    run_python(
        f"import {module}\n" + readme_program(package),
        python=str(python),
        cwd=tmp_path / "work",
        HOME=str(tmp_path),
    )
    installed = run_python(
        "from importlib.metadata import distributions\n"
        "print(' '.join(sorted(d.name.lower() for d in distributions())))",
        python=str(python),
    ).split()
    ours = {name for name in installed if name.startswith(("spt-", "stable-"))}
    assert ours == {package}
    if package == "spt-registry":
        assert not {"torch", "lightning", "jax"} & set(installed)
