"""The scanner: what it looks at, what it reads, what it says."""

import errno
import os
import shutil
import threading
import time

import pytest
from spt_registry.index import scan as scan_module
from spt_registry.index import walk
from spt_registry.index.query import Registry
from spt_registry.index.scan import scan


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path, tmp_path / "registry.db")


def ids(registry):
    return sorted(record.run_id for record in registry.query())


class Calls:
    """Counts what the walk asks the file system."""

    def __init__(self, monkeypatch):
        self.names = []
        for module, name in ((os, "stat"), (os, "scandir"), (os, "open")):
            monkeypatch.setattr(module, name, self.counted(getattr(module, name), name))

    def counted(self, function, name):
        def call(path, *args, **kwargs):
            if "/runs" in str(path):
                self.names.append((name, str(path)))
            return function(path, *args, **kwargs)

        return call


def test_an_unchanged_run_costs_two_calls_and_no_read(registry, put, settled, monkeypatch):
    for i in range(50):
        put(f"r{i}", created=1_700_000_000.0 + 43 * i)
    registry.scan()
    calls = Calls(monkeypatch)
    report = registry.scan()
    assert (report.upserted, report.skipped_unchanged) == (0, 50)
    assert {name for name, _ in calls.names} == {"stat"}
    assert 100 <= len(calls.names) <= 100 + 5
    assert abs(report.calls - len(calls.names)) <= 2


def test_only_the_changed_one_is_read(registry, put, settled, monkeypatch):
    for i in range(20):
        put(f"r{i}", created=1_700_000_000.0 + 43 * i)
    registry.scan()
    changed = put("r7", created=1_700_000_000.0 + 43 * 7, status="failed")
    new = put("new")
    calls = Calls(monkeypatch)
    assert registry.scan().upserted == 2
    read = {path for name, path in calls.names if name == "open" and path.endswith("sidecar.json")}
    assert read == {str(changed / "sidecar.json"), str(new / "sidecar.json")}
    assert registry["r7"].status == "failed"


def test_a_run_that_appears_right_after_its_folder_was_listed_is_seen(registry, put):
    put("a", folder="20240101/000000/a")
    for i in range(20):  # all within the grain of the clock that stamps folders
        registry.scan()
        put(f"b{i}", folder=f"20240101/000000/b{i}")
        assert registry.scan().total_sidecars == i + 2


def test_restored_copies_with_old_times_are_seen(registry, put, settled):
    path = put("a", notes="first")
    old = time.time() - 1e6
    os.utime(path / "sidecar.json", (old, old))
    registry.scan()
    put("a", notes="other")
    os.utime(path / "sidecar.json", (old - 100, old - 100))  # older than the index knows
    assert registry.scan().upserted == 1
    assert registry["a"].notes == "other"
    time_folder = path.parent
    stamp = time_folder.stat().st_mtime
    put("b", folder=f"{time_folder.relative_to(registry.cache_dir / 'runs')}/b")
    os.utime(time_folder, (stamp, stamp))  # as a backup tool does
    registry.scan()
    assert ids(registry) == ["a", "b"]


def test_a_folder_becomes_a_run_and_any_depth_is_found(registry, put, settled):
    (registry.cache_dir / "runs" / "20240101" / "000000" / "late" / "checkpoints").mkdir(
        parents=True
    )
    put("deep", folder="a/b/c/d/deep")
    put("shallow", folder="shallow")
    registry.scan()
    assert ids(registry) == ["deep", "shallow"]
    put("late", folder="20240101/000000/late")
    put("inside", folder="20240101/000000/late/checkpoints/inside")  # a run's insides are its own
    registry.scan()
    assert ids(registry) == ["deep", "late", "shallow"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no JSON"),
        ('{"run_id": "x"', "no JSON"),
        ("[1]", "it holds a list"),
        ("{}", "no run_id"),
        ('{"run_id": 3}', "'run_id' is a int"),
        ('{"run_id": ""}', "no run_id"),
        ('{"run_id": "x", "created_at": "yesterday"}', "'created_at' is a str"),
        ('{"run_id": "x", "created_at": 1e300}', "'created_at' is no Unix time"),
        ('{"run_id": "x", "updated_at": NaN}', "'updated_at' is a str"),
        ('{"run_id": "x", "created_at": ' + "9" * 400 + "}", "'created_at' is no Unix time"),
        ('{"run_id": "x", "hparams": []}', "'hparams' is a list"),
        ('{"run_id": "x", "tags": "a"}', "'tags' is a str"),
        ('{"run_id": "x", "schema_version": 99}', "upgrade spt-registry"),
        ('{"run_id": "x", "config": ' + '{"a":' * 200_000 + "1" + "}" * 200_001, "no JSON"),
        ("\udcff".encode("utf-8", "surrogateescape"), "no UTF-8"),
    ],
)
def test_a_broken_sidecar_is_reported_with_its_path_and_the_rest_is_served(
    registry, put, text, reason
):
    put("good")
    bad = put("bad", text="" if isinstance(text, bytes) else text) / "sidecar.json"
    if isinstance(text, bytes):
        bad.write_bytes(text)
    for _ in range(2):
        report = registry.scan()
        assert (report.total_sidecars, report.skipped_invalid) == (2, 1)
        assert list(report.broken) == [str(bad)]
        assert reason in report.broken[str(bad)]
        assert ids(registry) == ["good"]
    put("bad")
    assert registry.scan().skipped_invalid == 0
    assert ids(registry) == ["bad", "good"]


def test_pipes_folders_and_links_in_the_place_of_a_sidecar(registry, put):
    put("good")
    for name in ("pipe", "folder", "dangling"):
        (registry.cache_dir / "runs" / "x" / name).mkdir(parents=True)
    os.mkfifo(registry.cache_dir / "runs/x/pipe/sidecar.json")
    (registry.cache_dir / "runs/x/folder/sidecar.json").mkdir()
    (registry.cache_dir / "runs/x/dangling/sidecar.json").symlink_to("nowhere")
    assert registry.scan().skipped_invalid == 2
    assert ids(registry) == ["good"]


def test_a_sidecar_of_a_hundred_megabytes_is_refused_unread(registry, put, monkeypatch):
    good = put("good")
    huge = put("huge") / "sidecar.json"
    with huge.open("ab") as file:
        file.truncate(100 * 1024 * 1024)
    sizes, read = [], os.read
    monkeypatch.setattr(os, "read", lambda handle, n: sizes.append(n) or read(handle, n))
    report = registry.scan()
    assert sizes == [(good / "sidecar.json").stat().st_size + 1]
    assert "it has 104857600 bytes, more than" in report.broken[str(huge)]
    assert ids(registry) == ["good"]


@pytest.mark.parametrize(("times", "broken"), [(1, 0), (2, 1)])
def test_a_file_that_nfs_calls_stale_is_opened_anew(registry, put, monkeypatch, times, broken):
    put("a")
    fstat, left = os.fstat, [OSError(errno.ESTALE, "Stale file handle")] * times

    def stale(handle):
        if left:
            raise left.pop()
        return fstat(handle)

    monkeypatch.setattr(os, "fstat", stale)
    assert registry.scan().skipped_invalid == broken
    assert left == []


def test_values_that_are_no_json_for_sqlite(registry, put):
    text = '{"run_id": "odd", "summary": {"a": NaN, "b": -Infinity, "c": 1e999, "d": 0.5}, '
    text += '"hparams": {"nested": {"x": [1, {"y": 2}]}, "s": "lone \\ud800", "big": 1267650600228'
    text += '229401496703205376, "\\u00fc": 1}, "tags": [1, "t\\u0000"], "status": "finished"}'
    put("odd", text=text)
    put("plain", summary={"d": 0.7})
    assert registry.scan().broken == {}
    record = registry["odd"]
    assert str(record.summary) == "{'a': nan, 'b': -inf, 'c': inf, 'd': 0.5}"
    assert record.hparams["nested.x.1.y"] == 2
    assert record.hparams["s"] == "lone \\ud800"
    assert record.hparams["big"] == 2**100
    assert (record.tags, record.status) == (("1", "t\\x00"), "completed")
    for key in ("a", "b", "c", "d", "hparams.ü", "hparams.s", "notes"):
        assert len(registry.query(sort_by=key)) == 2
    assert [r.run_id for r in registry.query(sort_by="d")] == ["plain", "odd"]


def test_orphans_are_marked_never_deleted_and_revive(registry, put, tmp_path_factory):
    path = put("a", notes="kept", status="running", beat=0)
    put("b")
    registry.scan()
    aside = tmp_path_factory.mktemp("aside") / "a"
    shutil.move(path, aside)
    for _ in range(2):
        assert registry.scan().orphaned == 1
        record = registry["a"]
        assert (record.status, record.alive, record.notes) == ("orphaned", False, "kept")
    assert registry.scan(full=True).orphaned == 1
    shutil.move(aside, path)
    assert registry.scan().orphaned == 0
    assert registry["a"].status == "running"


def test_an_unmounted_tree_orphans_nothing(registry, put):
    put("a")
    registry.scan()
    (registry.cache_dir / "runs").rename(registry.cache_dir / "unmounted")
    assert registry.scan().orphaned == 0
    assert registry["a"].status == "completed"


def test_a_link_to_its_own_parent_ends(registry, put):
    path = put("a")
    (path.parent / "loop").symlink_to(path.parent.parent)
    (path.parent / "self").symlink_to("self")
    assert registry.scan().total_sidecars == 1


def test_runs_that_vanish_while_they_are_scanned(registry, put, monkeypatch):
    paths = [put(f"r{i}", created=1_700_000_000.0 + i) for i in range(30)]
    read = scan_module.read_files

    def vanish_then_read(folder):
        shutil.rmtree(paths.pop(), ignore_errors=True)
        return read(folder)

    monkeypatch.setattr(scan_module, "read_files", vanish_then_read)
    report = registry.scan()
    assert report.broken == {}
    assert report.upserted == 15
    assert len(registry) == 15
    below = walk.Walk._below
    folder = put("gone", folder="x/y/gone").parent

    def vanish_then_list(self, path, calls):
        if path == "runs/x/y":
            shutil.rmtree(folder, ignore_errors=True)
        return below(self, path, calls)

    monkeypatch.setattr(walk.Walk, "_below", vanish_then_list)
    assert registry.scan().unreadable == []


@pytest.mark.parametrize("wait_s", [0, 0.001])
def test_a_slow_file_system_is_read_by_threads_in_order(wait_s):
    threads = set()

    def ask(item):
        threads.add(threading.get_ident())
        if wait_s:
            time.sleep(wait_s)
        return item

    assert list(walk.in_parallel(ask, range(1000))) == list(range(1000))
    assert len(threads) == (1 + walk.THREADS if wait_s else 1)


def test_progress_is_told(registry, put):
    for i in range(5):
        put(f"r{i}", created=1_700_000_000.0 + i)
    told = []
    registry.scan(progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (5, 5)


def test_two_runs_of_one_id_are_both_there(registry, put):
    put("same", folder="a/same", notes="one")
    put("same", folder="b/same", notes="two")
    registry.scan()
    assert sorted(record.notes for record in registry.query()) == ["one", "two"]
    with pytest.raises(ValueError, match="'same' names 2 runs"):
        registry["same"]


def test_permission_denied_keeps_what_is_known(registry, put, as_nobody):
    put("open", folder="20240101/000001/open")
    closed = put("closed", folder="20240101/000002/closed")
    db = registry.cache_dir / "shared" / "index.db"
    db.parent.mkdir()
    scan(registry.cache_dir, db)
    for path in (db.parent, *db.parent.iterdir()):
        path.chmod(0o777)
    closed.parent.chmod(0)
    unreadable = put("unreadable", folder="20240101/000003/unreadable") / "sidecar.json"
    unreadable.chmod(0)
    try:
        with as_nobody():
            report = scan(registry.cache_dir, db)
            records = Registry(registry.cache_dir, db).query()
    finally:
        closed.parent.chmod(0o755)
    assert report.unreadable[0].startswith("runs/20240101/000002")
    assert len(report.unreadable) == 1
    assert report.broken == {str(unreadable): "it cannot be read: Permission denied"}
    assert report.orphaned == 0
    found = {record.run_id: record.status for record in records}
    assert found == {"open": "completed", "closed": "completed"}
