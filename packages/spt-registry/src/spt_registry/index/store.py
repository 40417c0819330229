"""The SQLite file: made, rebuilt when damaged, written by one process at a time."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spt_registry.index.location import is_network
from spt_registry.sidecar import TERMINAL

SCHEMA = 5
BUSY_S = 60.0
IS_OPEN = f"orphaned_at IS NULL AND status NOT IN {TERMINAL}"
TABLES = """
CREATE TABLE runs (
    path TEXT PRIMARY KEY, orphaned_at REAL, run_id TEXT, status TEXT,
    created_at REAL, updated_at REAL, ended_at REAL,
    notes TEXT, tags TEXT, summary TEXT, hparams TEXT, rest TEXT
);
CREATE INDEX runs_created ON runs (created_at);
CREATE INDEX runs_id ON runs (run_id);
CREATE INDEX runs_orphaned ON runs (path) WHERE orphaned_at IS NOT NULL;
CREATE INDEX runs_open ON runs (path, status) WHERE is_open;
CREATE TABLE stamps (path TEXT PRIMARY KEY, mtime_ns INTEGER, size INTEGER, inode INTEGER)
    WITHOUT ROWID;
CREATE TABLE folders (path TEXT PRIMARY KEY, mtime_ns INTEGER, children TEXT) WITHOUT ROWID;
"""


def connect(db_path: Path) -> sqlite3.Connection:
    """Open the index, making it, or making it anew if it is of another schema or damaged.

    Raises:
        OSError, sqlite3.Error: If it can be neither opened nor made.
    """
    db_path.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(3):
        try:
            connection = _open_usable(db_path) if db_path.exists() else None
        except sqlite3.OperationalError:
            if db_path.exists():
                raise
            connection = None  # somebody has just deleted it
        if connection is not None:
            return connection
        with writing(db_path):
            _make(db_path)
    raise sqlite3.DatabaseError(f"{db_path} cannot be made a usable index; delete it.")


def _open_usable(db_path: Path) -> sqlite3.Connection | None:
    """The index, as it is if nothing can be written beside it; ``None`` if it is of no use."""
    if may_write(db_path):
        try:
            return _usable(sqlite3.connect(db_path, timeout=BUSY_S, isolation_level=None), db_path)
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise
    fixed = f"{db_path.absolute().as_uri()}?mode=ro&immutable=1"
    return _usable(sqlite3.connect(fixed, isolation_level=None, uri=True), db_path)


def may_write(db_path: Path) -> bool:
    """Whether an index that is there may be written, with the files SQLite puts beside it."""
    return os.access(db_path, os.W_OK) and os.access(db_path.parent, os.W_OK)


def _usable(connection: sqlite3.Connection, db_path: Path) -> sqlite3.Connection | None:
    """The connection if it reads our index; else it is closed."""
    try:
        if _reads_our_index(connection, db_path):
            return connection
    except BaseException:
        connection.close()
        raise
    connection.close()
    return None


def _reads_our_index(connection: sqlite3.Connection, db_path: Path) -> bool:
    try:
        connection.execute("PRAGMA synchronous = OFF")  # derived: a power cut costs one full scan
        connection.execute("PRAGMA temp_store = MEMORY")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute("SELECT path FROM runs LIMIT 1").fetchone()
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    except sqlite3.DatabaseError as error:
        if any(word in str(error) for word in ("no such", "not a database", "malformed")):
            return False
        raise
    if mode != "wal":  # readers shall not wait while a long scan fills memory
        connection.execute("PRAGMA cache_spill = OFF")
    return bool(version == SCHEMA and not (mode == "wal" and is_network(db_path.parent)))


def _make(db_path: Path) -> None:
    """Build an empty index beside the old one and put it in its place."""
    if db_path.exists():
        connection = _open_usable(db_path)
        if connection is not None:  # by another process, while this one waited
            connection.close()
            return
    fresh = db_path.with_name(f".{db_path.name}.{os.getpid()}.tmp")
    fresh.unlink(missing_ok=True)
    connection = sqlite3.connect(fresh, isolation_level=None)
    try:
        connection.execute("PRAGMA page_size = 16384")  # a run is about 5 KB
        connection.execute("PRAGMA synchronous = OFF")
        connection.executescript(f"BEGIN; {TABLES.replace('is_open', IS_OPEN)} COMMIT;")
        connection.execute(f"PRAGMA user_version = {SCHEMA}")
        if not is_network(db_path.parent):  # WAL shares memory, which hosts do not
            connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()
    for suffix in ("-wal", "-shm", "-journal"):
        db_path.with_name(db_path.name + suffix).unlink(missing_ok=True)
    os.replace(fresh, db_path)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All changes of the block at once, or none of them."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def writing(db_path: Path, wait_s: float = BUSY_S) -> Iterator[bool]:
    """Hold the right to write the index; false if another process keeps it all the time."""
    handle = os.open(db_path.with_name(db_path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield _lock(handle, wait_s)
    finally:
        os.close(handle)


def _lock(handle: int, wait_s: float) -> bool:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.005)
        except OSError:  # a file system without locks: SQLite's own must do
            return True
        else:
            return True
