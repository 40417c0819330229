"""What two ranks do in `test_distributed.py`; as a program, Lightning starts the second one.

Usage: python ddp_program.py FOLDER TASK
"""

import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path

import lightning as pl
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import test_exact_resume as parts
from spt_manager import Stopped
from spt_manager import set as set_config

DDP = {"strategy": "ddp", "devices": 2}
BATCHES = parts.BATCHES // 2 * parts.EPOCHS
STOPS = [(batch % 2, "train", batch) for batch in range(BATCHES)] + [(1, "validation", 1)]


class SignalRank(parts.SignalAt):
    """A signal that one rank gets and the other does not."""

    def __init__(self, rank, hook, count):
        super().__init__(hook, count, signal.SIGUSR1)
        self.rank = rank

    def _tick(self, hook, trainer):
        if trainer.global_rank == self.rank:
            super()._tick(hook, trainer)


class FailOn(pl.Callback):
    def __init__(self, folder, rank, batch, hard):
        self.folder, self.rank, self.batch, self.hard = folder, rank, batch, hard

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_rank == self.rank and batch_idx == self.batch:
            note(self.folder, "failed", time.time())
            if self.hard:
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError(f"planned failure of rank {self.rank}")


def resume(folder, kinds):
    """Stop at every batch by a signal to either rank, go on, and compare with a whole run."""
    for kind in kinds:
        whole = parts.start(kind, **DDP)
        whole()
        expected = parts.outcome(whole)
        for rank, hook, batch in STOPS:
            first = parts.start(
                kind, SignalRank(rank, hook, batch), run_id=f"{kind}{batch}{hook}", **DDP
            )
            with pytest.raises(Stopped, match="preempted") as stopped:
                first()
            assert stopped.value.code == (75 if whole.trainer.global_rank == 0 else 0)
            again = parts.start(kind, run_id=f"{kind}{batch}{hook}", **DDP)
            again()
            assert again.run_dir == first.run_dir
            parts.assert_same(expected, parts.outcome(again), f"{kind}/{batch}/{hook}")
    note(folder, whole.trainer.global_rank, str(whole.run_dir))


def fail(folder, rank, hard):
    parts.start("plain", FailOn(folder, rank, 1, hard), **DDP)()


def preempt(folder):
    parts.start("plain", SignalRank(1, "train", 1), **DDP)()


def note(folder, name, text):
    Path(folder, f"note-{name}").write_text(json.dumps(text))


def main(folder, task, *arguments):
    set_config(cache_dir=str(Path(folder) / "cache"), default_callbacks={"env_dump": False})
    {"resume": resume, "fail": fail, "preempt": preempt}[task](folder, *arguments)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    given = sys.argv[1:]
    if given[1] == "resume":
        main(*given, ["plain", "stateful"])
        fail(given[0], 1, False)  # and end as Lightning ends its ranks
    else:
        main(*given)
