"""Data parallelism: eight virtual devices, and two processes of two devices, against one device."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import spt_jax as spj

PROGRAM = Path(__file__).parent / "program.py"
pytestmark = pytest.mark.distributed


def start(folder, number, port):
    """One of two processes, each with two devices."""
    flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=2")
    command = [sys.executable, str(PROGRAM), str(folder / "two"), str(folder / "two.npz")]
    return subprocess.Popen(
        [*command, f"process={number}", f"port={port}"],
        env={**os.environ, "XLA_FLAGS": flags},
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process):
    _, error = process.communicate(timeout=400)
    assert process.returncode == 0, error


@pytest.fixture(scope="module")
def eight(tmp_path_factory, train):
    assert len(jax.devices()) == 8
    return train(tmp_path_factory.mktemp("eight"), devices="1")


def losses(found):
    names = found["names"].tolist()
    values = found["rows"][:, names.index("fit/loss_step")]
    return values[~np.isnan(values)]


def test_eight_devices_make_the_steps_of_one(small):
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


def test_two_processes_make_the_steps_of_one(tmp_path, eight):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "two").mkdir()
    for process in [start(tmp_path, number, port) for number in range(2)]:
        ended(process)
    two = np.load(tmp_path / "two.npz")
    assert eight["steps"] == two["steps"] == 4
    np.testing.assert_allclose(losses(two), losses(eight), rtol=1e-3)
    for name in (name for name in two.files if name.startswith("params/")):
        np.testing.assert_allclose(two[name], eight[name], rtol=2e-2, atol=2e-3)
    assert len(list(tmp_path.glob("two/runs/*/*/run/sidecar.json"))) == 1
