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
import time

import pytest
from spt_registry import RunWriter, open_registry
from spt_registry.index.query import Registry


def rows(folder):
    path = folder / "metrics.csv"
    if not path.exists():
        return []
    text = path.read_text()
    return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))


def write_until_killed(folder, first, shared):
    """Log rows, one per step, and say up to which step they were flushed."""
    with contextlib.suppress(BaseException):
        run = RunWriter(folder, flush_every_s=0.002, hparams={"attempt": first})
        shared[8:16] = struct.pack("q", 1)  # opened
        for step in range(first, first + 100_000):
            run.log_metrics({"loss": step / 2, f"late{step // 500}": step}, step=step)
            if step % 20 == 0:
                run.save()
                shared[:8] = struct.pack("q", step)
    os._exit(0)


def test_a_writer_killed_two_hundred_times_loses_only_what_was_not_flushed(tmp_path):
    rng = random.Random(0)
    shared = mmap.mmap(-1, 16)
    folders = [tmp_path / "runs" / "day" / f"t{i}" / f"r{i}" for i in range(20)]
    next_step = dict.fromkeys(folders, 0)
    opened = 0
    for attempt in range(200):
        folder = folders[attempt % len(folders)]
        shared[:16] = struct.pack("qq", next_step[folder] - 1, 0)
        child = os.fork()
        if child == 0:
            write_until_killed(folder, next_step[folder], shared)
        deadline = time.monotonic() + 5 * (attempt % 4 > 0)  # every fourth dies while it opens
        while shared[8] == 0 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(rng.random() * 0.03)
        os.kill(child, signal.SIGKILL)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        flushed, did_open = struct.unpack("qq", shared[:16])
        opened += did_open
        if did_open:
            sidecar = json.loads((folder / "sidecar.json").read_text())
            assert sidecar["status"] == "running"
        steps = [int(row["step"]) for row in rows(folder)]
        assert steps == sorted(set(steps))
        if steps:
            assert steps[-1] >= flushed
            kept = [row for row in rows(folder) if row["loss"]]
            assert all(float(row["loss"]) == int(row["step"]) / 2 for row in kept)
            next_step[folder] = steps[-1] + 1
    assert opened > 100  # the kills fell on writers at work, too
    registry = Registry(tmp_path, tmp_path / "registry.db")
    report = registry.scan()
    begun = [folder for folder in folders if (folder / "sidecar.json").exists()]
    assert (report.broken, report.total_sidecars) == ({}, len(begun))
    assert {record.status for record in registry.query()} == {
        "running"
    }  # their hearts beat just now
    for folder in begun:
        os.utime(folder / "heartbeat", (1, 1))
        assert registry.history(folder.name)["step"].tolist() == [
            int(row["step"]) for row in rows(folder)
        ]
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


def test_an_index_on_a_full_disk_serves_its_last_state(small_disk, put, tmp_path):
    put("a")
    db = small_disk / "index.db"
    assert len(open_registry(db, cache_dir=tmp_path)) == 1
    for i in range(300):
        put(f"b{i}", notes="x" * 5000, created=1_700_000_000.0 + i)
    fill(small_disk)
    told = []
    from loguru import logger

    sink = logger.add(lambda message: told.append(str(message)), format="{message}")
    try:
        registry = open_registry(db, cache_dir=tmp_path, scan_ttl_s=0)
    finally:
        logger.remove(sink)
    assert len(registry) == 1
    assert "cannot be brought up to date (" in told[0]
    (small_disk / "filler").unlink()


def test_a_place_that_may_not_be_written(tmp_path, as_nobody):
    place = tmp_path / "closed"
    place.mkdir()

    def write():
        with pytest.raises(PermissionError, match="Permission denied.*closed"):
            RunWriter(place / "r")

    as_nobody(write)
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
