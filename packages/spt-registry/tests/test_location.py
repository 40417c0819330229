"""Where the index lives, which journal it uses, what becomes of it."""

import sqlite3
from pathlib import Path

import pytest
from spt_registry import open_registry
from spt_registry.index import location, store
from spt_registry.index.location import index_path, is_network, private_index

MOUNTS = """\
1 0 0:1 / / rw,relatime shared:1 - ext4 /dev/a rw
2 1 0:2 / /data rw - nfs4 host:/x rw
3 1 0:3 / /data/local rw - xfs /dev/b rw
4 1 0:4 / /with\\040space rw - lustre x@tcp:/y rw
5 1 0:5 / /sshfs rw - fuse.sshfs me@x: rw
6 1 0:6 / /tmpfs rw - tmpfs none rw
"""


@pytest.mark.parametrize(
    ("path", "network"),
    [
        ("/home/me", False),
        ("/data", True),
        ("/data/runs", True),
        ("/data/local/runs", False),
        ("/database", False),
        ("/with space/runs", True),
        ("/sshfs/a", True),
        ("/tmpfs", False),
    ],
)
def test_what_is_a_network_file_system(path, network):
    assert is_network(Path(path), MOUNTS) is network


def journal(db):
    connection = sqlite3.connect(db)
    try:
        return connection.execute("PRAGMA journal_mode").fetchone()[0]
    finally:
        connection.close()


def test_local_disks_get_a_write_ahead_log(tmp_path, put):
    put("a")
    registry = open_registry(cache_dir=tmp_path)
    assert registry.db_path == tmp_path / "registry.db"
    assert journal(registry.db_path) == "wal"


def test_network_disks_get_a_private_local_index(tmp_path, put, monkeypatch):
    put("a")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(location, "is_network", lambda path, mounts=None: "home" not in str(path))
    registry = open_registry(cache_dir=tmp_path)
    assert registry.db_path == private_index(tmp_path)
    assert registry.db_path.is_relative_to(tmp_path / "home")
    assert len(registry) == 1
    assert not (tmp_path / "registry.db").exists()


def test_db_wins_and_has_a_rollback_journal_on_a_network_disk(tmp_path, put, monkeypatch):
    put("a")
    own = tmp_path / "own" / "index.db"
    first = open_registry(own, cache_dir=tmp_path)
    assert (first.db_path, journal(own), len(first)) == (own, "wal", 1)
    monkeypatch.setattr(store, "is_network", lambda path: True)  # the disk is now exported
    again = open_registry(own, cache_dir=tmp_path, scan_ttl_s=0)
    assert (journal(own), len(again)) == ("delete", 1)


def test_a_read_only_cache_dir_gets_a_private_index(tmp_path, put, as_nobody, monkeypatch):
    put("a")
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    with as_nobody():
        assert index_path(tmp_path) == private_index(tmp_path)
        assert open_registry(cache_dir=tmp_path)["a"].status == "completed"
    assert not (tmp_path / "registry.db").exists()


def test_another_users_index_is_left_alone(tmp_path, put, as_nobody, monkeypatch):
    put("a")
    open_registry(cache_dir=tmp_path)
    tmp_path.chmod(0o777)
    (tmp_path / "registry.db").chmod(0o644)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    with as_nobody():
        registry = open_registry(cache_dir=tmp_path)
        assert registry.db_path.is_relative_to(tmp_path / "home")
        assert len(registry) == 1


def test_an_index_that_cannot_be_written_serves_as_it_is(tmp_path, put, as_nobody, told):
    put("a")
    db = tmp_path / "fixed" / "index.db"
    open_registry(db, cache_dir=tmp_path)
    put("b")
    with as_nobody():
        assert len(open_registry(db, cache_dir=tmp_path, scan_ttl_s=0)) == 1
    assert "cannot be brought up to date" in told[0]


def test_no_index_and_no_place_for_one_is_an_error_with_advice(tmp_path, put, as_nobody):
    put("a")
    match = r"cannot be written .* Choose another place: `db_path`"
    with as_nobody(), pytest.raises(OSError, match=match):
        open_registry(tmp_path / "no" / "index.db", cache_dir=tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"no database" * 1000, b"SQLite format 3\0" + b"x" * 5000]
)
def test_a_damaged_index_is_made_anew(tmp_path, put, content):
    put("a")
    open_registry(cache_dir=tmp_path)
    (tmp_path / "registry.db").write_bytes(content)
    for suffix in ("-wal", "-shm"):
        (tmp_path / f"registry.db{suffix}").unlink(missing_ok=True)
    assert len(open_registry(cache_dir=tmp_path, scan_ttl_s=0)) == 1


def test_an_index_of_another_schema_is_made_anew(tmp_path, put):
    put("a")
    connection = sqlite3.connect(tmp_path / "registry.db")
    connection.executescript("CREATE TABLE runs (run_id TEXT); PRAGMA user_version = 1;")
    connection.close()
    assert open_registry(cache_dir=tmp_path)["a"].run_id == "a"


def test_deleting_it_is_harmless(tmp_path, put):
    put("a")
    registry = open_registry(cache_dir=tmp_path)
    (tmp_path / "registry.db").unlink()
    assert len(open_registry(cache_dir=tmp_path)) == 1  # at once, although it has just scanned
    assert registry["a"].run_id == "a"


def test_back_to_back_questions_scan_once(tmp_path, put):
    put("a")
    assert len(open_registry(cache_dir=tmp_path)) == 1
    put("b")
    assert len(open_registry(cache_dir=tmp_path)) == 1
    assert len(open_registry(cache_dir=tmp_path, scan_ttl_s=0)) == 2
