"""Many writers, readers and scanners at once."""

import csv
import json
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest
from spt_registry import RunWriter
from spt_registry.index import store
from spt_registry.index.query import Registry, open_registry


def write(cache_dir, i, until):
    folder = cache_dir / "runs" / "20240101" / f"{i % 7:06}" / f"w{i}"
    with RunWriter(folder, tags=[f"w{i}"], flush_every_s=0.05) as run:
        step = 0
        while step < 5 or time.monotonic() < until:  # also when the start took long
            run.log_metrics({"loss": 1 / (step + 1), f"m{step % 30 // 10}": step}, step=step)
            step += 1
            time.sleep(0.01)
    (cache_dir / f"rows{i}").write_text(str(step))


def scan_and_ask(cache_dir, until):
    seen = 0
    while time.monotonic() < until:
        registry = open_registry(cache_dir=cache_dir, scan_ttl_s=0)
        found = registry.query(sort_by="loss", limit=5)
        count = len(registry)
        assert count >= seen
        assert len(found) == min(5, count) or count < 5
        seen = count


def ask_for_three(cache_dir, until, wal):
    store.is_network = lambda path: not wal
    while time.monotonic() < until:
        registry = open_registry(cache_dir=cache_dir, scan_ttl_s=0)
        assert len(registry.query(limit=3)) <= 3


def delete_the_index(cache_dir, until):
    while time.monotonic() < until:
        (cache_dir / "registry.db").unlink(missing_ok=True)
        time.sleep(0.05)


def count_ten(cache_dir):
    assert len(open_registry(cache_dir=cache_dir)) == 10


def in_children(cache_dir, tasks):
    """Run functions of this file, each in a process of its own; fail with what any of them says.

    They are forked from a fresh Python, as this one may have threads.
    """
    command = [sys.executable, __file__, str(cache_dir), json.dumps(tasks)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def fork_all(cache_dir, tasks):
    children = []
    for name, *arguments in tasks:
        child = os.fork()
        if child == 0:
            code = 0
            try:
                globals()[name](cache_dir, *arguments)
            except BaseException:
                traceback.print_exc()
                code = 1
            os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    sys.exit(any(codes))


def test_64_writers_and_4_scanners(tmp_path):
    until = time.monotonic() + 5
    tasks = [("write", i, until) for i in range(64)]
    in_children(tmp_path, tasks + [("scan_and_ask", until + 0.5)] * 4)
    registry = Registry(tmp_path, tmp_path / "registry.db")
    assert registry.scan().broken == {}
    records = registry.query()
    assert len(records) == 64
    assert {record.status for record in records} == {"completed"}
    for i in range(64):
        with (registry[f"w{i}"].run_dir / "metrics.csv").open(newline="") as file:
            steps = [int(row["step"]) for row in csv.DictReader(file)]
        assert steps == list(range(int((tmp_path / f"rows{i}").read_text())))


@pytest.mark.parametrize("wal", [True, False])
def test_an_index_may_be_deleted_under_scanners_and_readers(tmp_path, put, wal):
    for i in range(30):
        put(f"r{i}", created=1_700_000_000.0 + i)
    until = time.monotonic() + 3
    in_children(tmp_path, [("ask_for_three", until, wal)] * 3 + [("delete_the_index", until)])
    assert len(open_registry(cache_dir=tmp_path)) == 30


def test_first_openers_all_get_an_index(tmp_path, put):
    for i in range(10):
        put(f"r{i}", created=1_700_000_000.0 + i)
    in_children(tmp_path, [("count_ten",)] * 16)


if __name__ == "__main__":
    fork_all(Path(sys.argv[1]), json.loads(sys.argv[2]))
