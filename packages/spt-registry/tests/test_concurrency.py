"""Many writers, readers and scanners at once."""

import csv
import os
import time
import traceback

import pytest
from spt_registry import RunWriter
from spt_registry.index.query import Registry, open_registry


def in_children(functions, folder):
    """Run each function in a process of its own; fail with what any of them says."""
    children = []
    for i, function in enumerate(functions):
        child = os.fork()
        if child == 0:
            code = 0
            try:
                function()
            except BaseException:
                (folder / f"error{i}").write_text(traceback.format_exc())
                code = 1
            os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    errors = [path.read_text() for path in folder.glob("error*")]
    assert not any(codes), "\n".join(errors)


def writer(cache_dir, i, until):
    def write():
        folder = cache_dir / "runs" / "20240101" / f"{i % 7:06}" / f"w{i}"
        with RunWriter(folder, tags=[f"w{i}"], flush_every_s=0.05) as run:
            step = 0
            while step < 5 or time.monotonic() < until:  # also when the start took long
                run.log_metrics({"loss": 1 / (step + 1), f"m{step % 30 // 10}": step}, step=step)
                step += 1
                time.sleep(0.01)
        (cache_dir / f"rows{i}").write_text(str(step))

    return write


def scanner(cache_dir, until):
    def look():
        seen = 0
        while time.monotonic() < until:
            registry = open_registry(cache_dir=cache_dir, scan_ttl_s=0)
            found = registry.query(sort_by="loss", limit=5)
            count = len(registry)
            assert count >= seen
            assert len(found) == min(5, count) or count < 5
            seen = count

    return look


def test_64_writers_and_4_scanners(tmp_path):
    until = time.monotonic() + 5
    functions = [writer(tmp_path, i, until) for i in range(64)]
    functions += [scanner(tmp_path, until + 0.5) for _ in range(4)]
    in_children(functions, tmp_path)
    registry = Registry(tmp_path, tmp_path / "registry.db")
    assert registry.scan().broken == {}
    records = registry.query()
    assert len(records) == 64
    assert {record.status for record in records} == {"completed"}
    for i in range(64):
        with (registry[f"w{i}"].run_dir / "metrics.csv").open(newline="") as file:
            steps = [int(row["step"]) for row in csv.DictReader(file)]
        assert steps == list(range(int((tmp_path / f"rows{i}").read_text())))


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_an_index_may_be_deleted_under_scanners_and_readers(tmp_path, put, monkeypatch, mode):
    from spt_registry.index import store

    monkeypatch.setattr(store, "is_network", lambda path: mode == "delete")
    for i in range(30):
        put(f"r{i}", created=1_700_000_000.0 + i)
    until = time.monotonic() + 2

    def look():
        while time.monotonic() < until:
            registry = open_registry(cache_dir=tmp_path, scan_ttl_s=0)
            assert len(registry.query(limit=3)) <= 3

    def delete():
        while time.monotonic() < until:
            (tmp_path / "registry.db").unlink(missing_ok=True)
            time.sleep(0.05)

    in_children([look, look, look, delete], tmp_path)
    assert len(open_registry(cache_dir=tmp_path)) == 30


def test_first_openers_all_get_an_index(tmp_path, put):
    for i in range(10):
        put(f"r{i}", created=1_700_000_000.0 + i)

    def look():
        assert len(open_registry(cache_dir=tmp_path)) == 10

    in_children([look] * 16, tmp_path)
