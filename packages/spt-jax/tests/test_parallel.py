"""Data parallelism: eight virtual devices, and two processes of two devices, against one device."""

import json
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
pytestmark = [pytest.mark.distributed, pytest.mark.slow]


def two_processes(folder, *options):
    """Two processes of two devices each; their exit codes, and the final arrays if they came to the end.

    The options are those of the second process alone.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=2")
    out = folder / "two.npz"
    out.unlink(missing_ok=True)
    command = [sys.executable, str(PROGRAM), str(folder), str(out), f"port={port}"]
    processes = [
        subprocess.Popen(
            [*command, *words], env={**os.environ, "XLA_FLAGS": flags}, stderr=subprocess.PIPE
        )
        for words in (["process=0"], ["process=1", *options])
    ]
    errors = [process.communicate(timeout=400)[1].decode() for process in processes]
    codes = [process.returncode for process in processes]
    assert codes in ([0, 0], [75, 0]), "\n".join(errors)
    return codes, dict(np.load(out)) if out.exists() else None


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    codes, found = two_processes(folder)
    assert codes == [0, 0]
    return folder, found


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


def test_two_processes_make_the_steps_of_one(two, eight):
    folder, found = two
    assert eight["steps"] == found["steps"] == 8
    np.testing.assert_allclose(losses(found), losses(eight), rtol=1e-3)
    for name in (name for name in found if name.startswith("params/")):
        np.testing.assert_allclose(found[name], eight[name], rtol=2e-2, atol=2e-3)
    sidecar(folder)


def sidecar(folder):
    (path,) = folder.glob("runs/*/*/run/sidecar.json")
    return json.loads(path.read_text())


def test_a_signal_to_one_process_stops_both_and_they_go_on(tmp_path, two):
    """Sent to the second process alone, in training and in validation; the first one saves for both."""
    for moment in ("signal=1", "validation=1"):
        codes, found = two_processes(tmp_path, moment)
        assert codes == [75, 0]
        assert found is None
        assert sidecar(tmp_path)["status"] == "preempted"
    codes, found = two_processes(tmp_path)
    assert codes == [0, 0]
    assert sidecar(tmp_path)["status"] == "completed"
    assert sorted(found) == sorted(two[1])
    for name, value in two[1].items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
