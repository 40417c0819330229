"""The layer picture of the architecture, held by tools and by what an import loads."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = sorted(path.parent.name for path in (ROOT / "packages").glob("*/pyproject.toml"))


def tool(name: str) -> str:
    """The path of a command-line tool of this environment."""
    path = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert path, f"{name} is not installed"
    return path


def test_there_are_ten_packages():
    assert len(PACKAGES) == 10


def test_imports_follow_the_layers():
    result = subprocess.run(
        [tool("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


# Requirements that stand for something other than an import of the package itself.
NOT_IMPORTED = {
    # the methods with a teacher and the metrics of their evaluation build on them
    "spt-methods": {"DEP002": ["torchmetrics", "spt-callbacks"]},
    # the facade names the packages it presents in strings; its demo and pictures use what they bring along
    "stable-pretraining": {
        "DEP002": [name for name in PACKAGES if name.startswith("spt-")],
        "DEP003": ["torch", "lightning", "timm", "rich", "jax", "flax", "numpy"],
    },
}


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_declares_what_it_imports(package):
    folder = ROOT / "packages" / package
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    modules = [path.parent.name for path in (ROOT / "packages").glob("*/src/*/__init__.py")]
    module_of = {module.replace("_", "-"): module for module in sorted(modules)}
    module_of |= {"pyyaml": "yaml", "hydra-core": "hydra", "scikit-learn": "sklearn"}
    names = ",".join(f"{name}={module}" for name, module in module_of.items())
    command = [tool("deptry"), "src", "--config", "pyproject.toml"]
    command += ["--package-module-name-map", names]
    ignored = dict(NOT_IMPORTED.get(package, {}))
    extras = project.get("optional-dependencies", {})
    if extras:  # users may ask for one without the package importing it
        command += ["--optional-dependencies-dev-groups", ",".join(extras)]
        lines = [line for group in extras.values() for line in group]
        wanted = sorted({re.match(r"[\w-]+", line)[0] for line in lines})
        ignored["DEP004"] = [module_of.get(name, name) for name in wanted]
    if ignored:
        rules = [f"{rule}={'|'.join(names)}" for rule, names in ignored.items()]
        command += ["--per-rule-ignores", ",".join(rules)]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("module", "banned"),
    [
        ("stable_pretraining", ["torch", "lightning", "jax", "pandas", "timm"]),
        ("stable_pretraining.cli", ["torch", "lightning", "jax", "pandas"]),
        ("spt_registry", ["torch", "lightning", "jax", "pandas", "pyarrow"]),
        ("spt_registry.cli", ["torch", "lightning", "jax", "pandas", "pyarrow"]),
        ("spt_jax", ["torch", "lightning"]),
        ("spt_losses", ["lightning", "torchvision", "jax"]),
        ("spt_optim", ["lightning", "torchvision", "jax"]),
    ],
)
def test_an_import_loads_no_more_than_it_needs(module, banned, run_python):
    loaded = run_python(
        f"import sys, {module}\nprint(' '.join(name for name in {banned!r} if name in sys.modules))"
    )
    assert loaded.split() == []


def test_what_builds_on_lightning_loads_no_more_than_that(run_python):
    """Lightning loads torchmetrics, which loads transformers where it is installed: not our doing."""
    banned = {
        "spt_methods": ["transformers", "jax"],
        "spt_callbacks": ["transformers", "sklearn", "wandb", "jax"],
        "spt_manager": ["wandb", "trackio", "swanlab", "submitit", "jax"],
    }
    loaded = run_python(
        "import importlib, os, sys, lightning\n"
        f"for module, banned in {banned!r}.items():\n"
        "    if os.fork() == 0:\n"  # each on its own, on the same Lightning
        "        for name in banned: sys.modules.pop(name, None)\n"
        "        importlib.import_module(module)\n"
        "        print(module, [name for name in banned if name in sys.modules], flush=True)\n"
        "        os._exit(0)\n"
        "    assert os.wait()[1] == 0\n"
    )
    assert [line for line in loaded.splitlines() if line.startswith("spt_")] == [
        f"{module} []" for module in banned
    ]


def test_an_import_changes_nothing_in_the_process(run_python):
    modules = [name.replace("-", "_") for name in PACKAGES]
    changed = run_python(
        "import importlib, os, signal, logging, warnings, sys\n"
        "import torch, lightning, torchvision, timm, datasets, loguru, torchmetrics, jax, flax.nnx\n"
        "import torchdata.stateful_dataloader, hydra, optax\n"
        "def state():\n"
        "    return {\n"
        "        'environ': dict(os.environ),\n"
        "        'signals': [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)],\n"
        "        'logging': (list(logging.root.handlers), logging.root.level),\n"
        "        'loguru': sorted(loguru.logger._core.handlers),\n"
        "        'filters': list(warnings.filters),\n"
        "        'meta_path': list(sys.meta_path),\n"
        "        'excepthook': sys.excepthook,\n"
        "        'threads': (torch.get_num_threads(), torch.get_default_dtype()),\n"
        "        'rng': torch.get_rng_state().sum().item(),\n"
        "    }\n"
        f"for module in {modules}:\n"
        "    before = state()\n"
        "    importlib.import_module(module)\n"
        "    after = state()\n"
        "    print('changed:', module, [key for key in before if before[key] != after[key]])"
    )
    lines = [line for line in changed.splitlines() if line.startswith("changed:")]
    assert lines == [f"changed: {module} []" for module in modules]


def test_no_entry_point_reaches_other_peoples_trainers():
    for path in (ROOT / "packages").glob("*/pyproject.toml"):
        assert "entry-points" not in path.read_text(), path
