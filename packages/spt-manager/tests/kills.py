"""Kill a training again and again, and compare what comes out with a run that was left alone.

Usage: python kills.py [--kills 100] [--seed 0]

Children are forked from this process, which has torch loaded but never uses it, so that a start
costs a fraction of a second. Each child tells where it is through shared memory; it is killed at a
random moment of a random phase: in training, in validation, while saving.
"""

import argparse
import collections
import mmap
import os
import random
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import lightning as pl
import test_exact_resume as parts
import torch
from spt_manager import set as set_config
from spt_manager.checkpointing import AtomicCheckpointIO

PHASES = ("training", "validation", "saving")
FIELDS = ("phase", "count", "began_at", "saved")


class Shared:
    """A few numbers that a child writes and its parent reads."""

    def __init__(self):
        self.memory = mmap.mmap(-1, 8 * len(FIELDS))

    def __getitem__(self, name):
        return struct.unpack_from("q", self.memory, 8 * FIELDS.index(name))[0]

    def __setitem__(self, name, value):
        struct.pack_into("q", self.memory, 8 * FIELDS.index(name), value)

    def tell(self, phase):
        self["count"] += 1
        self["phase"] = PHASES.index(phase)


class Teller(pl.Callback):
    """Tells the phase, and the first step of this attempt."""

    def __init__(self, shared):
        self.shared = shared

    def on_train_batch_start(self, trainer, *args):
        if self.shared["began_at"] < 0:
            self.shared["began_at"] = trainer.global_step
        self.shared.tell("training")

    def on_validation_batch_start(self, trainer, *args):
        if not trainer.sanity_checking:
            self.shared.tell("validation")


def tell_saves(shared):
    """Let a child tell when a save begins, and which step is safe once it has ended."""
    write = AtomicCheckpointIO._write

    def told(io, checkpoint, target):
        shared.tell("saving")
        write(io, checkpoint, target)
        if target.name == "last.ckpt" and io.error is None:
            shared["saved"] = checkpoint["global_step"]

    AtomicCheckpointIO._write = told


def child(shared, cache, kind, run_id, result, background):
    """One attempt, in a process of its own."""
    warnings.simplefilter("ignore")
    tell_saves(shared)
    set_config(
        cache_dir=str(cache),
        requeue_checkpoint_every_n_steps=1,
        background_checkpoint=background,
        **parts.QUIET,
    )
    run = parts.start(kind, own=[Teller(shared)], run_id=run_id)
    run()
    torch.save(parts.outcome(run), result)


def fork(log, function, *args):
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        function(*args)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def ended(pid):
    """The exit status of a child that has ended."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return status if found else None


class Soak:
    """Runs that are killed until they are done."""

    def __init__(self, place, seed):
        self.place, self.random = place, random.Random(seed)
        self.killed = collections.Counter()
        self.runs, self.lost, self.expected = 0, [], {}

    def whole(self, kind):
        """What a run of this kind comes to when nobody kills it."""
        if kind not in self.expected:
            result, log = self.place / f"whole-{kind}.pt", self.place / f"whole-{kind}.log"
            pid = fork(log, child, Shared(), self.place / "whole", kind, kind, result, False)
            assert os.waitpid(pid, 0)[1] == 0, log.read_text()[-3000:]
            self.expected[kind] = torch.load(result, weights_only=False)
        return self.expected[kind]

    def run(self):
        """One run, killed a few times on its way."""
        self.runs += 1
        kind = ("plain", "stateful", "workers")[self.runs % 3]
        name = f"run{self.runs}"
        result, log = self.place / f"{name}.pt", self.place / f"{name}.log"
        expected, safe = self.whole(kind), 0
        while True:
            shared = Shared()
            shared["began_at"], shared["saved"] = -1, safe
            args = (shared, self.place / "cache", kind, name, result, self.runs % 2 == 0)
            status = self.watch(fork(log, child, *args), shared)
            if shared["began_at"] >= 0:
                assert shared["began_at"] >= safe, f"{name} lost saved steps\n{log.read_text()}"
                self.lost.append(shared["began_at"] - safe)
            safe = max(safe, shared["saved"])
            if status == 0:
                break
            assert status == signal.SIGKILL, f"{name} failed:\n{log.read_text()[-4000:]}"
        parts.assert_same(expected, torch.load(result, weights_only=False), name)
        left = [str(path) for path in (self.place / "cache").rglob("*.tmp")]
        assert not left, left

    def watch(self, pid, shared):
        """Kill a child in a random phase, or let it end; its exit status."""
        phase, count = self.random.randrange(3), self.random.randrange(1, 12)
        armed = self.random.random() < 0.85
        while (status := ended(pid)) is None:
            if armed and shared["count"] >= count and shared["phase"] == phase:
                time.sleep(self.random.uniform(0, 0.02))
                os.kill(pid, signal.SIGKILL)
                status = os.waitpid(pid, 0)[1]
                if status == signal.SIGKILL:
                    self.killed[PHASES[shared["phase"]]] += 1
                return status
            time.sleep(0.0005)
        return status

    def report(self):
        where = ", ".join(f"{self.killed[phase]} in {phase}" for phase in PHASES)
        return (
            f"{sum(self.killed.values())} kills ({where}) of {self.runs} runs: every run went on "
            "from its last saved step and came to the same weights, probe, queues, random state "
            "and metrics.csv, bit by bit; no temporary file was left."
        )


def kill(number, seed):
    """Kill runs until there were so many kills; print what was found."""
    with tempfile.TemporaryDirectory(prefix="spt-soak-") as folder:
        soak = Soak(Path(folder), seed)
        began = time.monotonic()
        while sum(soak.killed.values()) < number:
            soak.run()
        print(f"{soak.report()} ({time.monotonic() - began:.0f} s)")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    kill(args.kills, args.seed)


if __name__ == "__main__":
    main()
