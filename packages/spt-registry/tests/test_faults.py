"""Killed writers, full disks, places that may not be written."""

import contextlib
import csv
import errno
import json
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from spt_registry import RunWriter, open_registry
from spt_registry.index.query import Registry

pytestmark = pytest.mark.slow


def rows(folder):
    path = folder / "metrics.csv"
    if not path.exists():
        return []
    text = path.read_text()
    return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))


NUM_RUNS, NUM_ROUNDS, AT_ONCE = 20, 10, 2


class Writer:
    """A forked process that logs one row per step, to be killed."""

    def __init__(self, folder, delay_s, may_open_first):
        self.folder = folder
        self.first = int(rows(folder)[-1]["step"]) + 1 if rows(folder) else 0
        self.shared = mmap.mmap(-1, 16)
        self.shared[:] = struct.pack("qq", self.first - 1, 0)
        self.delay_s, self.may_open_first = delay_s, may_open_first
        self.due = time.monotonic() + (30 if may_open_first else delay_s)
        self.pid = os.fork()
        if self.pid == 0:
            self.write()

    def write(self):
        os.nice(10)  # behind the one that kills, or it writes on for long after its time
        with contextlib.suppress(BaseException):
            run = RunWriter(self.folder, flush_every_s=0.002, hparams={"attempt": self.first})
            self.shared[8:] = struct.pack("q", 1)
            for step in range(self.first, self.first + 100_000):
                run.log_metrics({"loss": step / 2, f"late{step // 500}": step}, step=step)
                if step % 20 == 0:
                    run.save()
                    self.shared[:8] = struct.pack("q", step)
        os._exit(0)

    def is_killed(self):
        """Kill it when its time has come."""
        if self.may_open_first and self.shared[8]:
            self.may_open_first, self.due = False, time.monotonic() + self.delay_s
        if time.monotonic() < self.due:
            return False
        os.kill(self.pid, signal.SIGKILL)
        return os.WTERMSIG(os.waitpid(self.pid, 0)[1]) == signal.SIGKILL

    def check(self):
        """What is on disk is whole, and holds all that was flushed; whether it came to write."""
        flushed, opened = struct.unpack("qq", self.shared)
        if opened:
            assert json.loads((self.folder / "sidecar.json").read_text())["status"] == "running"
        found = rows(self.folder)
        steps = [int(row["step"]) for row in found]
        assert steps == sorted(set(steps))
        assert (steps or [-1])[-1] >= flushed
        assert all(float(row["loss"]) == int(row["step"]) / 2 for row in found if row["loss"])
        return opened


def kill_writers(cache_dir):
    """Kill each of 20 runs' writers 10 times; print how many had begun to write."""
    rng = random.Random(0)
    folders = [cache_dir / "runs" / "day" / f"t{i}" / f"r{i}" for i in range(NUM_RUNS)]
    opened = 0
    for _ in range(NUM_ROUNDS):
        for start in range(0, NUM_RUNS, AT_ONCE):
            # every fourth dies while it opens
            writers = [
                Writer(folder, rng.random() * 0.03, i % 4 > 0)
                for i, folder in enumerate(folders[start : start + AT_ONCE], start)
            ]
            alive = writers
            while alive := [one for one in alive if not one.is_killed()]:
                time.sleep(0.001)
            opened += sum(one.check() for one in writers)
        rng.shuffle(folders)
    print(opened)


def test_writers_killed_two_hundred_times_lose_only_what_was_not_flushed(tmp_path):
    # they are forked from a fresh Python, as this one may have threads
    command = [sys.executable, __file__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100  # the kills fell on writers at work, too
    registry = Registry(tmp_path, tmp_path / "registry.db")
    report = registry.scan()
    begun = [path.parent for path in tmp_path.glob("runs/day/*/*/sidecar.json")]
    assert (report.broken, report.total_sidecars) == ({}, len(begun))
    assert len(begun) == NUM_RUNS
    # their hearts beat just now
    assert {record.status for record in registry.query()} == {"running"}
    for folder in begun:
        os.utime(folder / "heartbeat", (1, 1))
        steps = [int(row["step"]) for row in rows(folder)]
        assert registry.history(folder.name)["step"].tolist() == steps
    assert {record.status for record in registry.query()} == {"lost"}
    for folder in begun[:3]:
        RunWriter(folder).finalize()
    assert Registry(tmp_path, registry.db_path).scan().upserted == 3
    assert len(registry.query(status="completed")) == 3


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place):
    with contextlib.suppress(OSError), (place / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def test_a_full_disk_keeps_rows_waiting_and_files_whole(small_disk):
    folder = small_disk / "runs" / "a" / "b" / "r"
    run = RunWriter(folder, hparams={"lr": 1}, flush_every_s=0.01)
    run.log_metrics({"loss": 0.0}, step=0)
    run.save()
    fill(small_disk)
    for step in range(1, 2000):
        run.log_metrics({"loss": float(step), f"late{step // 100}": 1.0}, step=step)
    with pytest.raises(OSError, match="No space left") as caught:
        run.save()
    assert caught.value.errno == errno.ENOSPC
    time.sleep(0.1)  # the thread goes on trying
    assert json.loads((folder / "sidecar.json").read_text())["run_id"] == "r"
    written = rows(folder)
    assert all(int(row["step"]) == i for i, row in enumerate(written))
    (small_disk / "filler").unlink()
    run.finalize()
    assert [int(row["step"]) for row in rows(folder)] == list(range(2000))
    assert json.loads((folder / "sidecar.json").read_text())["status"] == "completed"
    assert not list(folder.glob(".*.tmp"))


def test_an_index_on_a_full_disk_serves_its_last_state(small_disk, put, tmp_path, told):
    put("a")
    db = small_disk / "index.db"
    assert len(open_registry(db, cache_dir=tmp_path)) == 1
    for i in range(300):
        put(f"b{i}", notes="x" * 5000, created=1_700_000_000.0 + i)
    fill(small_disk)
    registry = open_registry(db, cache_dir=tmp_path, scan_ttl_s=0)
    assert len(registry) == 1
    assert "cannot be brought up to date (" in told[0]
    (small_disk / "filler").unlink()


def test_a_place_that_may_not_be_written(tmp_path, as_nobody):
    place = tmp_path / "closed"
    place.mkdir()
    with as_nobody(), pytest.raises(PermissionError, match="Permission denied.*closed"):
        RunWriter(place / "r")
    assert list(place.iterdir()) == []


def test_a_disk_that_turns_read_only_keeps_rows_waiting(small_disk):
    run = RunWriter(small_disk / "r", flush_every_s=60)
    run.log_metrics({"loss": 1.0}, step=0)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    try:
        with pytest.raises(OSError, match="Read-only file system"):
            run.save()
        record = open_registry(cache_dir=small_disk)  # its index is elsewhere
    except BaseException:
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
        raise
    assert record.db_path.parent != small_disk
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    run.finalize()
    assert [row["loss"] for row in rows(small_disk / "r")] == ["1.0"]


def test_a_run_directory_that_is_deleted_under_its_writer(tmp_path):
    import shutil

    run = RunWriter(tmp_path / "r", flush_every_s=60)
    shutil.rmtree(tmp_path / "r")
    run.log_metrics({"loss": 1.0})
    with pytest.raises(FileNotFoundError, match="No such file"):
        run.save()
    run._flusher.stop()
    run.closed = True


if __name__ == "__main__":
    kill_writers(Path(sys.argv[1]))
