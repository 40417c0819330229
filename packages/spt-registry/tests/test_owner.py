"""Two writers of one run are noticed."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest
from spt_registry import RunWriter


def test_a_second_writer_is_refused_while_the_first_lives(tmp_path):
    first = RunWriter(tmp_path)
    with pytest.raises(RuntimeError, match=f"being written by this very process .*{os.getpid()}"):
        RunWriter(tmp_path)
    program = "import sys; from spt_registry import RunWriter; RunWriter(sys.argv[1])"
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert f"is being written by process {os.getpid()} on" in done.stderr
    first.finalize()
    RunWriter(tmp_path).finalize()


def owned_elsewhere(folder, **owner):
    RunWriter(folder).finalize()
    state = json.loads((folder / "sidecar.json").read_text())
    state["status"] = "running"
    state["owner"].update({"host": "elsewhere", "token": "other", **owner})
    (folder / "sidecar.json").write_text(json.dumps(state))
    os.utime(folder / "heartbeat")


def test_an_owner_on_another_host_counts_by_its_heart_and_its_job(tmp_path, monkeypatch):
    owned_elsewhere(tmp_path, job="7", restart="0")
    with pytest.raises(RuntimeError, match="being written by process .* on elsewhere"):
        RunWriter(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    RunWriter(tmp_path).finalize()
    monkeypatch.delenv("SLURM_JOB_ID")
    owned_elsewhere(tmp_path)
    os.utime(tmp_path / "heartbeat", (time.time() - 100,) * 2)
    RunWriter(tmp_path).finalize()


def test_a_dead_owner_of_this_host_does_not_count(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    owned_elsewhere(tmp_path, host=socket.gethostname(), pid=dead.pid)
    RunWriter(tmp_path).finalize()


def test_a_writer_that_was_replaced_stops(tmp_path):
    run = RunWriter(tmp_path)
    run.log_metrics({"loss": 1.0})
    run.save()
    path = tmp_path / "sidecar.json"
    state = json.loads(path.read_text())
    state["owner"].update(token="another", pid=1)
    path.write_text(json.dumps(state))
    run.log_metrics({"loss": 2.0})
    run.save()
    with pytest.raises(RuntimeError, match="was taken over by process 1 on"):
        run.log_metrics({"loss": 3.0})
    run.finalize()
    assert json.loads(path.read_text())["owner"]["token"] == "another"
    assert (tmp_path / "metrics.csv").read_text() == "step,loss\n0,1.0\n"
