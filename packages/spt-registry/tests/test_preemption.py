"""Signals become a flag; SLURM is asked once."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from spt_registry.run import PreemptionGuard, preemption, requeue


def test_the_first_signal_is_kept_and_earlier_handlers_run_and_return():
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    term = signal.getsignal(signal.SIGTERM)
    mine = signal.getsignal(signal.SIGUSR1)
    try:
        with PreemptionGuard() as guard:
            assert not guard.requested
            signal.raise_signal(signal.SIGUSR1)
            signal.raise_signal(signal.SIGTERM)
            assert (guard.requested, guard.signal_name) == (True, "SIGUSR1")
        assert heard == [signal.SIGUSR1]
        assert signal.getsignal(signal.SIGUSR1) is mine
        assert signal.getsignal(signal.SIGTERM) == term
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_forked_workers_die_of_the_signal_and_the_parent_hears_nothing():
    program = (
        "import os, signal\nfrom spt_registry.run import PreemptionGuard\n"
        "with PreemptionGuard() as guard:\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
        "        os._exit(3)\n"
        "    _, status = os.waitpid(child, 0)\n"
        "    print(os.WTERMSIG(status) == signal.SIGTERM, guard.requested)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "True False\n", done.stderr


def test_only_the_main_thread_may_watch():
    said = []

    def enter():
        try:
            PreemptionGuard().__enter__()
        except RuntimeError as error:
            said.append(str(error))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert said == ["PreemptionGuard must be entered in the main thread of the program."]


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    monkeypatch.setattr(preemption, "_requeued", set())

    def install(code, shown="JobState=RUNNING"):
        program = tmp_path / "scontrol"
        program.write_text(
            f'#!/bin/sh\n[ "$2" = show ] && echo "{shown}" && exit 0\n'
            f'echo "$@" >> {tmp_path}/calls\necho Denied >&2\nexit {code}\n'
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
        return tmp_path / "calls"

    return install


def test_slurm_is_asked_once_by_the_name_it_knows(scontrol):
    calls = scontrol(0)
    task = {"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "3"}
    task["PATH"] = os.environ["PATH"]
    assert requeue(task) is None
    assert requeue(task) is None
    assert requeue({"SLURM_JOB_ID": "12", "PATH": os.environ["PATH"]}) is None
    assert calls.read_text().splitlines() == ["requeue 9_3", "requeue 12"]


def test_a_refusal_is_told_in_words_and_may_be_tried_again(scontrol):
    calls = scontrol(1)
    job = {"SLURM_JOB_ID": "5", "PATH": os.environ["PATH"]}
    assert requeue(job) == "`scontrol requeue 5` failed with exit code 1: Denied"
    assert "exit code 1" in requeue(job)
    assert len(calls.read_text().splitlines()) == 2


def test_a_job_that_slurm_ends_itself_is_left_alone(scontrol):
    job = {"SLURM_JOB_ID": "8", "PATH": os.environ["PATH"]}
    calls = scontrol(0, "JobState=COMPLETING RunTime=00:00:10 TimeLimit=00:05:00")
    assert "is ending job 8 already" in requeue({**job, "PATH": os.environ["PATH"]})
    assert not calls.exists()
    calls = scontrol(0, "JobState=COMPLETING RunTime=00:05:01 TimeLimit=00:05:00")
    assert requeue({**job, "PATH": os.environ["PATH"]}) is None
    assert calls.read_text().splitlines() == ["requeue 8"]


def test_no_scontrol_and_no_slurm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = requeue({"SLURM_JOB_ID": "6", "PATH": str(tmp_path)})
    assert "could not run" in found
    assert "This is no SLURM job" in requeue({})
