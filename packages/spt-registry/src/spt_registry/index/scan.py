"""From sidecars to the index; the index is derived and safe to delete."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spt_registry.index.rows import INSERT, as_columns, read_files
from spt_registry.index.store import connect, transaction, writing
from spt_registry.index.walk import Walk, in_parallel
from spt_registry.sidecar import BrokenSidecarError

Stamp = tuple[int, int, int]
Progress = Callable[[int, int], None]


@dataclass
class ScanReport:
    """What a scan found.

    Attributes:
        total_sidecars: Run directories with a sidecar.
        upserted: Sidecars read because they were new or had changed.
        skipped_unchanged: Sidecars left alone.
        skipped_invalid: Sidecars that cannot be used.
        orphaned: Runs of earlier scans whose directory is gone.
        broken: Why a sidecar cannot be used, by its path.
        unreadable: Folders that could not be looked into; their runs stay as they were.
        calls: File-system calls made.
        elapsed_s: Seconds.
        waited: Whether another process scanned all the time, so that nothing was done here.
    """

    total_sidecars: int = 0
    upserted: int = 0
    skipped_unchanged: int = 0
    skipped_invalid: int = 0
    orphaned: int = 0
    broken: dict[str, str] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    calls: int = 0
    elapsed_s: float = 0.0
    waited: bool = False

    def __str__(self) -> str:
        return (
            f"scan: {self.total_sidecars} sidecars, {self.upserted} upserted, "
            f"{self.skipped_unchanged} unchanged, {self.skipped_invalid} invalid, "
            f"{self.orphaned} orphaned in {1000 * self.elapsed_s:.0f} ms"
        )


def scan(
    cache_dir: str | Path,
    db_path: str | Path,
    *,
    full: bool = False,
    wait_s: float = 60.0,
    progress: Progress | None = None,
) -> ScanReport:
    """Bring the index up to date.

    Args:
        cache_dir: Root of the runs.
        db_path: The index.
        full: Read every sidecar, changed or not.
        wait_s: How long to wait for another process that scans; after that its answer serves.
        progress: Called with the number of sidecars read and to read.

    Returns:
        What was found. A broken sidecar is reported and the others are read.

    Raises:
        OSError, sqlite3.Error: If the index cannot be written.
    """
    started = time.monotonic()
    connection = connect(Path(db_path))
    try:
        with writing(Path(db_path), wait_s) as mine:
            scanner = Scanner(Path(cache_dir), connection, full=full)
            if mine:
                scanner.run(progress)
            scanner.report.waited = not mine
    finally:
        connection.close()
    scanner.report.elapsed_s = time.monotonic() - started
    return scanner.report


class Scanner:
    """One scan by the one process that may write now."""

    def __init__(self, root: Path, connection: sqlite3.Connection, *, full: bool) -> None:
        self.root = root
        self.connection = connection
        self.full = full
        self.report = ScanReport()
        self.known: dict[str, Stamp] = {}
        self.orphans: set[str] = set()

    def run(self, progress: Progress | None = None) -> None:
        """Walk, read what changed, write it in one transaction."""
        self._load()
        walk = Walk(self.root, self._folders(), self.known.keys() - self.orphans)
        walk.run("runs")
        # in order, as neighbours in time are asked for together and then lie on one page
        changed = sorted(path for path, stamp in walk.runs.items() if self._changed(path, stamp))
        vanished = walk.vanished(self.known.keys() - self.orphans)
        if changed or vanished or walk.fresh or walk.forgotten:
            stamps: list[tuple[str, int, int, int]] = []
            with transaction(self.connection):
                self._write(self._rows(changed, stamps, walk, progress), stamps, vanished, walk)
        self._count(walk, changed, vanished)

    def _load(self) -> None:
        rows = self.connection.execute("SELECT path, mtime_ns, size, inode FROM stamps")
        self.known = {path: (mtime, size, inode) for path, mtime, size, inode in rows}
        query = "SELECT path FROM runs WHERE orphaned_at IS NOT NULL"
        self.orphans = {path for (path,) in self.connection.execute(query)}

    def _folders(self) -> dict[str, tuple[int, str]]:
        if self.full:
            return {}
        rows = self.connection.execute("SELECT path, mtime_ns, children FROM folders")
        return {path: (mtime, children) for path, mtime, children in rows}

    def _changed(self, path: str, stamp: Stamp) -> bool:
        return self.full or path in self.orphans or self.known.get(path) != stamp

    def _rows(
        self,
        changed: list[str],
        stamps: list[tuple[str, int, int, int]],
        walk: Walk,
        progress: Progress | None,
    ) -> Iterator[tuple[Any, ...]]:
        files = zip(changed, in_parallel(self._read, changed), strict=True)
        for done, (path, found) in enumerate(files, 1):
            if progress is not None and (done % 100 == 0 or done == len(changed)):
                progress(done, len(changed))
            try:
                if isinstance(found, Exception):
                    raise found
                columns = as_columns(self.connection, *found)
            except BrokenSidecarError as error:
                self._note_broken(path, str(error))
            except OSError as error:
                self._note_broken(path, f"it cannot be read: {error.strerror}")
            else:
                self.report.upserted += 1
                stamps.append((path, *walk.runs[path]))
                yield (path, *columns)

    def _read(self, path: str) -> tuple[str, dict[str, Any]] | Exception:
        try:
            return read_files(f"{self.root}/{path}")
        except (BrokenSidecarError, OSError) as error:
            return error

    def _note_broken(self, path: str, reason: str) -> None:
        if os.path.isdir(f"{self.root}/{path}"):  # else it has just vanished
            self.report.broken[f"{self.root}/{path}/sidecar.json"] = reason

    def _write(
        self,
        rows: Iterator[tuple[Any, ...]],
        stamps: list[tuple[str, int, int, int]],
        vanished: list[str],
        walk: Walk,
    ) -> None:
        executemany = self.connection.executemany
        executemany(INSERT, rows)
        executemany("INSERT OR REPLACE INTO stamps VALUES (?, ?, ?, ?)", stamps)
        now = time.time()
        executemany(
            "UPDATE runs SET orphaned_at = ? WHERE path = ?", [(now, path) for path in vanished]
        )
        executemany("DELETE FROM folders WHERE path = ?", [(path,) for path in walk.forgotten])
        executemany("INSERT OR REPLACE INTO folders VALUES (?, ?, ?)", walk.fresh)

    def _count(self, walk: Walk, changed: list[str], vanished: list[str]) -> None:
        report = self.report
        report.total_sidecars = len(walk.runs)
        report.skipped_unchanged = len(walk.runs) - len(changed)
        report.skipped_invalid = len(report.broken)
        report.orphaned = len(vanished) + len(self.orphans - walk.runs.keys())
        report.unreadable = walk.unreadable
        report.calls = walk.calls + 6 * len(changed)
