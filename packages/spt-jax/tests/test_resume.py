"""A run that is killed, or asked to stop, ends as the run that was left alone: to the bit."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).parent / "program.py"


@pytest.fixture(scope="module")
def whole(train, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(folder)


def broken(folder, option, environ=None):
    """A run that ends before its time, in a process of its own."""
    command = [sys.executable, str(PROGRAM), str(folder), str(folder / "out.npz"), option]
    environ = {**os.environ, **(environ or {})}
    return subprocess.run(command, capture_output=True, text=True, timeout=500, env=environ)


def sidecar(folder):
    (path,) = folder.glob("runs/*/*/run/sidecar.json")
    return json.loads(path.read_text())


def assert_equal(found, whole):
    """Weights, optimizer, random keys, callbacks, sums; and every row of the metrics."""
    assert sorted(found) == sorted(whole)
    for name, value in whole.items():
        same = np.array_equal(found[name], value, equal_nan=value.dtype.kind == "f")
        assert same, f"{name}: {found[name]} is not {value}"


@pytest.mark.parametrize("step", [1, 5])
def test_killed_at_a_step(tmp_path, train, whole, step):
    """Before the first checkpoint, and between two inside an epoch."""
    done = broken(tmp_path, f"kill={step}")
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert_equal(train(tmp_path), whole[1])
    state = sidecar(tmp_path)
    assert state["status"] == "completed"
    assert len(state["attempts"]) == 2


def test_preempted_in_training(tmp_path, train, whole):
    """Saved, marked, queued again by a `scontrol` that writes down what it is asked, exit code 75."""
    tools, said = tmp_path / "bin", tmp_path / "said"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {said}\n')
    (tools / "scontrol").chmod(0o755)
    environ = {"PATH": f"{tools}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}
    done = broken(tmp_path, "signal=4", environ)
    assert done.returncode == 75, done.stderr
    assert said.read_text() == "requeue 17\n"
    assert sidecar(tmp_path)["status"] == "preempted"
    assert_equal(train(tmp_path), whole[1])


def test_preempted_in_a_validation(tmp_path, train, whole):
    done = broken(tmp_path, "validation=1")
    assert done.returncode == 75, done.stderr
    assert "The run was preempted and is not queued again" in done.stderr
    assert sidecar(tmp_path)["status"] == "preempted"
    assert_equal(train(tmp_path), whole[1])


def test_a_finished_run_is_left_as_it_is(train, whole):
    folder, expected = whole
    assert expected["steps"] == 6
    assert_equal(train(folder), expected)
