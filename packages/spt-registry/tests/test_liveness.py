"""Who lives, by the file system's clock."""

import os
import time

import pytest
from spt_registry import RunWriter, _flusher
from spt_registry.index import select
from spt_registry.index.query import Registry
from spt_registry.liveness import heartbeat_mtime, is_alive, touch_heartbeat


@pytest.mark.parametrize(
    ("beat", "status"),
    [
        (0, "running"),
        (-170, "running"),
        (-190, "lost"),
        (-3600, "lost"),
        (3600, "lost"),
        (None, "lost"),
    ],
)
def test_a_heart_counts_by_the_clock_of_its_file_system(tmp_path, put, monkeypatch, beat, status):
    put("r", status="running", beat=beat)
    put("ended", status="completed", beat=0)
    registry = Registry(tmp_path, tmp_path / "registry.db")
    registry.scan()
    true_time = time.time
    for skew in (0, -3600, 3600):  # of this node's clock
        monkeypatch.setattr(time, "time", lambda skew=skew: true_time() + skew)
        assert (registry["r"].status, registry["r"].alive) == (status, status == "running")
        assert [r.run_id for r in registry.query(alive=True)] == ["r"] * (status == "running")
        assert not registry["ended"].alive
        assert len(registry.query(status="lost")) == (status == "lost")


def test_hearts_of_ended_runs_are_not_looked_at(tmp_path, put, monkeypatch):
    for i in range(5):
        put(f"r{i}", beat=0, created=1_700_000_000.0 + i)
    put("open", status="running", beat=0)
    registry = Registry(tmp_path, tmp_path / "registry.db")
    registry.scan()
    looked = []
    monkeypatch.setattr(select, "heartbeat_mtime", lambda path: looked.append(path))
    assert len(registry.query()) == 6
    assert [os.path.basename(path) for path in looked] == ["open"]


def test_a_heart_beats_although_nothing_is_logged_and_nothing_else_is_written(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(_flusher, "HEARTBEAT_S", 0.01)
    run = RunWriter(tmp_path, flush_every_s=0.01)
    before = (tmp_path / "sidecar.json").stat()
    for _ in range(3):
        os.utime(tmp_path / "heartbeat", (5, 5))
        while heartbeat_mtime(tmp_path) == 5:
            time.sleep(0.001)
    assert (tmp_path / "sidecar.json").stat() == before
    assert not (tmp_path / "metrics.csv").exists()
    run.finalize()


def test_unknown_statuses_pass_through(tmp_path, put):
    put("r", status="paused", beat=0)
    put("s", status="finished")
    registry = Registry(tmp_path, tmp_path / "registry.db")
    registry.scan()
    assert (registry["r"].status, registry["r"].alive) == ("paused", True)
    assert registry["s"].status == "completed"


def test_the_helpers(tmp_path):
    assert heartbeat_mtime(tmp_path) is None
    touch_heartbeat(tmp_path)
    os.utime(tmp_path / "heartbeat", (5, 5))
    assert heartbeat_mtime(tmp_path) == 5
    touch_heartbeat(tmp_path)
    assert time.time() - heartbeat_mtime(tmp_path) < 60
    assert is_alive("running", 100, 100 + 179)
    assert not is_alive("running", 100, 100 + 181)
    assert is_alive("running", 100, 150, timeout_s=60)
    for status in ("completed", "failed", "preempted", "interrupted", "orphaned"):
        assert not is_alive(status, 100, 100)
