"""Two ranks: one place, exact resume, stops and failures of either."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

PROGRAM = Path(__file__).with_name("ddp_program.py")


def start(folder, task, launcher=(), **environ):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SPT_"))}
    return subprocess.run(
        [*(launcher or [sys.executable]), str(PROGRAM), str(folder), task],
        env={**clean, "OMP_NUM_THREADS": "1", **environ},
        capture_output=True,
        text=True,
        timeout=240,
    )


def sidecars(folder):
    found = sorted((folder / "cache" / "runs").rglob("sidecar.json"))
    return [json.loads(path.read_text()) for path in found]


def test_two_ranks_stop_and_go_on_exactly(tmp_path):
    done = start(tmp_path, "resume")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "note-0").read_text() == (tmp_path / "note-1").read_text()
    assert {state["status"] for state in sidecars(tmp_path)} == {"completed"}
    assert len(sidecars(tmp_path)) == 2 * (1 + 7)  # a stop in every batch, and one in validation
    left = [str(p) for p in (tmp_path / "cache").rglob("*") if p.name.endswith(".tmp")]
    assert left == []


def test_a_launcher_that_starts_all_ranks_agrees_on_one_place(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    meeting = ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "--rdzv-id=elastic7"]
    done = start(tmp_path, "preempt", [*torchrun, *meeting])
    assert done.returncode != 0  # 75 of rank 0 is a failure to torchrun
    (state,) = sidecars(tmp_path)
    assert state["status"] == "preempted"
    assert state["run_id"] == "elastic7"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_failure_of_one_rank_ends_all_and_is_recorded(tmp_path, rank):
    done = start(tmp_path, f"fail{rank}")
    assert time.time() - json.loads((tmp_path / "note-failed").read_text()) < 60
    assert done.returncode != 0
    (state,) = sidecars(tmp_path)
    assert state["status"] == "failed"
    assert f"planned failure of rank {rank}" in state["error"]
    assert "on_train_batch_start" in state["error"]


def test_a_rank_that_is_killed_ends_all(tmp_path):
    done = start(tmp_path, "kill1")
    assert time.time() - json.loads((tmp_path / "note-failed").read_text()) < 60
    assert done.returncode != 0
    (state,) = sidecars(tmp_path)
    assert state["status"] == "failed"


def test_the_exit_code_of_a_preempted_run(tmp_path):
    done = start(tmp_path, "preempt")
    assert done.returncode == 75, done.stderr[-3000:]
    (state,) = sidecars(tmp_path)
    assert state["status"] == "preempted"
