"""Two ranks: one place, exact resume, stops and failures of either."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from forked import ranks

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

PROGRAM = Path(__file__).with_name("ddp_program.py")


def run_program(folder, task, launcher=()):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SPT_"))}
    return subprocess.run(
        [*(launcher or [sys.executable]), str(PROGRAM), str(folder), task],
        env={**clean, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )


def fork_ranks(folder, *task):
    """Exit codes of two ranks, started at once as a launcher does."""
    processes = ranks(folder, "ddp_program", "main", str(folder), *task)
    codes = [process.end() for process in processes]
    print(*(process.output() for process in processes), sep="\n")
    return codes


def sidecars(folder):
    found = sorted((folder / "cache" / "runs").rglob("sidecar.json"))
    return [json.loads(path.read_text()) for path in found]


def assert_failed(state, rank):
    assert state["status"] == "failed"
    assert f"planned failure of rank {rank}" in state["error"]
    assert "on_train_batch_start" in state["error"]


def assert_ended_within_a_minute(folder):
    assert time.time() - json.loads((folder / "note-failed").read_text()) < 60


def test_two_ranks_stop_and_go_on_exactly(tmp_path):
    """And then the rank that Lightning has started fails, which ends both."""
    done = run_program(tmp_path, "resume")
    assert done.returncode != 0
    assert_ended_within_a_minute(tmp_path)
    whole = [json.loads((tmp_path / f"note-{rank}").read_text()) for rank in (0, 1)]
    assert whole[0] == whole[1], done.stderr[-3000:]
    *stopped, failed = sorted(sidecars(tmp_path), key=lambda state: state["created_at"])
    assert {state["status"] for state in stopped} == {"completed"}
    assert len(stopped) == 2 * (1 + 7)  # a stop in every batch, and one in validation
    assert_failed(failed, rank=1)
    left = [str(p) for p in (tmp_path / "cache").rglob("*") if p.name.endswith(".tmp")]
    assert left == []


def test_torchruns_ranks_agree_on_one_place(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    meeting = ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "--rdzv-id=elastic7"]
    done = run_program(tmp_path, "preempt", [*torchrun, *meeting])
    assert done.returncode != 0  # 75 of rank 0 is a failure to torchrun
    (state,) = sidecars(tmp_path)
    assert state["status"] == "preempted"
    assert state["run_id"] == "elastic7"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_failure_of_one_rank_ends_all_and_is_recorded(tmp_path, rank):
    """Nobody ends the other rank: it notices itself."""
    codes = fork_ranks(tmp_path, "fail", rank, False)
    assert_ended_within_a_minute(tmp_path)
    assert all(codes)
    (state,) = sidecars(tmp_path)
    assert_failed(state, rank)


def test_a_rank_that_is_killed_ends_all(tmp_path):
    codes = fork_ranks(tmp_path, "fail", 1, True)
    assert_ended_within_a_minute(tmp_path)
    assert codes[0] > 0
    assert codes[1] == -signal.SIGKILL
    (state,) = sidecars(tmp_path)
    assert state["status"] == "failed"


def test_the_exit_codes_of_a_preempted_run(tmp_path):
    assert fork_ranks(tmp_path, "preempt") == [75, 0]
    (state,) = sidecars(tmp_path)
    assert state["status"] == "preempted"
