"""Data parallelism: eight virtual devices, and two processes of two devices, against one device."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROGRAM = Path(__file__).parent / "program.py"
pytestmark = pytest.mark.distributed


def start(folder, name, *options):
    """A run in a process of its own: another test may have started JAX with one device here."""
    (folder / name).mkdir(exist_ok=True)
    flags = os.environ["XLA_FLAGS"]
    if any("process" in option for option in options):
        flags = flags.replace("device_count=8", "device_count=2")
    command = [sys.executable, str(PROGRAM), str(folder / name), str(folder / f"{name}.npz")]
    return subprocess.Popen(
        [*command, *options],
        env={**os.environ, "XLA_FLAGS": flags},
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process):
    _, error = process.communicate(timeout=400)
    assert process.returncode == 0, error


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("parallel")


@pytest.fixture(scope="module")
def eight(folder):
    ended(start(folder, "eight", "devices=1"))
    return np.load(folder / "eight.npz")


def losses(found):
    names = found["names"].tolist()
    values = found["rows"][:, names.index("fit/loss_step")]
    return values[~np.isnan(values)]


def test_eight_devices_make_the_steps_of_one(folder, eight, small):
    import jax
    import spt_jax as spj

    if len(jax.devices()) > 1:
        one = spj.Trainer(max_epochs=1, progress=False)
        many = spj.Trainer(max_epochs=1, progress=False, data_parallel=True)
        data = {name: value[:32] for name, value in small.arrays(32).items()}
        modules = [small.simclr(optim={"type": "sgd", "lr": 0.1}) for _ in range(2)]
        for trainer, module in zip((one, many), modules, strict=True):
            trainer.fit(module, spj.ArrayLoader(data, 16))
        assert one.callback_metrics["fit/loss"] == pytest.approx(
            many.callback_metrics["fit/loss"], rel=1e-5
        )
        for a, b in zip(*(small.leaves(module) for module in modules), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        with pytest.raises(ValueError, match="10 rows cannot be split over 8 devices"):
            many.fit(modules[1], spj.ArrayLoader(data, 10))
    assert eight["steps"] == 4
    assert np.isfinite(losses(eight)).all()


def test_two_processes_make_the_steps_of_one(folder, eight):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pair = [start(folder, "two", f"process={i}", f"port={port}") for i in range(2)]
    for process in pair:
        ended(process)
    two = np.load(folder / "two.npz")
    np.testing.assert_allclose(losses(two), losses(eight), rtol=1e-3)
    for name in (name for name in two.files if name.startswith("params/")):
        np.testing.assert_allclose(two[name], eight[name], rtol=2e-2, atol=2e-3)
    assert len(list(folder.glob("two/runs/*/*/run/sidecar.json"))) == 1
