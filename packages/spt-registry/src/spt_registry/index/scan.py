"""From sidecars to a SQLite index; the index is derived and safe to delete."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from spt_registry.writer import read_sidecar

SCHEMA = 1
TABLE = """
CREATE TABLE IF NOT EXISTS runs (
    path TEXT PRIMARY KEY, mtime_ns INTEGER, size INTEGER, sidecar TEXT, missing INTEGER DEFAULT 0
)"""


@dataclass
class ScanReport:
    """What a scan found.

    Attributes:
        total: Run directories with a sidecar.
        updated: Sidecars read because they were new or had changed.
        unchanged: Sidecars left alone.
        missing: Runs of earlier scans whose directory is gone.
        broken: Sidecars that cannot be read, by path.
        elapsed_s: Seconds.
    """

    total: int = 0
    updated: int = 0
    unchanged: int = 0
    missing: int = 0
    broken: list[str] = field(default_factory=list)
    elapsed_s: float = 0.0

    def __str__(self) -> str:
        return (
            f"scan: {self.total} runs, {self.updated} updated, {self.unchanged} unchanged, "
            f"{len(self.broken)} broken, {self.missing} missing in {1000 * self.elapsed_s:.0f} ms"
        )


def sidecars(runs: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Sidecars below ``runs`` with their stat; a run's own folders are not entered."""
    pending = [str(runs)]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(folder) as listing:
                entries = list(listing)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue  # vanished or closed to us since its parent was listed
        own = [entry for entry in entries if entry.name == "sidecar.json"]
        if own:
            try:
                yield own[0].path, own[0].stat()
            except FileNotFoundError:
                continue
        elif folder.count(os.sep) - str(runs).count(os.sep) < 6:
            pending += [e.path for e in entries if e.is_dir(follow_symlinks=False)]


def connect(db_path: Path) -> sqlite3.Connection:
    """Open the index, making it or, if its schema is another or it is damaged, making it anew."""
    connection = sqlite3.connect(db_path, timeout=30.0, isolation_level=None)
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version not in (0, SCHEMA):
            connection.execute("DROP TABLE IF EXISTS runs")
    except sqlite3.DatabaseError:
        connection.close()
        db_path.unlink()
        connection = sqlite3.connect(db_path, timeout=30.0, isolation_level=None)
    connection.execute(TABLE)
    connection.execute(f"PRAGMA user_version = {SCHEMA}")
    return connection


def scan(cache_dir: str | Path, db_path: str | Path, *, full: bool = False) -> ScanReport:
    """Bring the index up to date.

    Args:
        cache_dir: Root of the runs.
        db_path: The index.
        full: Read every sidecar, changed or not.

    Returns:
        What was found. A broken sidecar is reported and the others are read.
    """
    started = time.monotonic()
    report, runs = ScanReport(), Path(cache_dir) / "runs"
    connection = connect(Path(db_path))
    try:
        known = {
            path: (mtime, size)
            for path, mtime, size in connection.execute("SELECT path, mtime_ns, size FROM runs")
        }
        found, changed = set(), []
        for path, stat in sidecars(runs):
            relative = os.path.relpath(os.path.dirname(path), cache_dir)
            found.add(relative)
            stamp = (stat.st_mtime_ns, stat.st_size)
            if not full and known.get(relative) == stamp:
                report.unchanged += 1
                continue
            sidecar = read_sidecar(Path(path))
            if sidecar is None:
                report.broken.append(path)
                continue
            changed.append((relative, *stamp, json.dumps(sidecar)))
        gone = sorted(set(known) - found) if runs.is_dir() else []
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, 0)", changed)
        connection.executemany("UPDATE runs SET missing = 1 WHERE path = ?", [(p,) for p in gone])
        connection.execute("COMMIT")
    finally:
        connection.close()
    report.total, report.updated, report.missing = len(found), len(changed), len(gone)
    report.elapsed_s = time.monotonic() - started
    return report
