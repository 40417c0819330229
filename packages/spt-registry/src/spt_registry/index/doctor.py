"""What is wrong with the runs of a cache directory, and what to do about it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from spt_registry.index.location import is_network
from spt_registry.index.query import Registry
from spt_registry.index.record import RunRecord
from spt_registry.index.scan import ScanReport
from spt_registry.run.files import file_system_time

STALLED_S = 3600.0
SKEW_S = 60.0
OLD_S = 86400.0


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: Its name.
        path: Where.
        explanation: What it means and what to do.
    """

    kind: str
    path: str
    explanation: str


def examine(registry: Registry, report: ScanReport) -> list[Finding]:
    """Everything that is wrong.

    Args:
        registry: The registry.
        report: What a scan of just now found.
    """
    records = registry.query()
    now = file_system_time(registry.cache_dir)
    return [
        *_unreadable(registry, report),
        *_duplicates(records),
        *(finding for record in records for finding in _one_run(record, now)),
        *_half_made(registry.cache_dir, now),
        *_index(registry),
    ]


def _unreadable(registry: Registry, report: ScanReport) -> Iterator[Finding]:
    for path, reason in report.broken.items():
        yield Finding(
            "broken",
            path,
            f"{reason}. Its run is not listed, or as it was before; repair the file"
            " or put the directory aside.",
        )
    for path in report.unreadable:
        yield Finding(
            "unreadable",
            str(registry.cache_dir / path),
            "The folder cannot be looked into; its runs are listed as they were. Ask its owner.",
        )


def _duplicates(records: list[RunRecord]) -> Iterator[Finding]:
    present = [record for record in records if record.status != "orphaned"]
    present.sort(key=lambda record: record.run_id)
    for run_id, group in groupby(present, key=lambda record: record.run_id):
        places = [str(record.run_dir) for record in group]
        if len(places) > 1:
            yield Finding(
                "duplicate",
                places[0],
                f"{run_id} is also in {', '.join(places[1:])}. One is a copy, or an id was used"
                " twice; put one aside with `rm`.",
            )


def _one_run(record: RunRecord, now: float) -> Iterator[Finding]:
    path = str(record.run_dir)
    if record.status == "orphaned":
        yield Finding(
            "orphaned",
            path,
            "The directory is gone, the index remembers the run. It revives when the directory"
            " comes back; `rm` forgets it.",
        )
    elif record.status == "lost":
        yield Finding(
            "lost",
            path,
            "It says it is running, but its heart has stopped: it was killed. Start"
            " it again to resume it.",
        )
    elif record.alive and now - record.updated_at > STALLED_S:
        yield Finding(
            "stalled",
            path,
            f"Its process lives, but nothing was logged for"
            f" {(now - record.updated_at) / 3600:.1f} hours. Look for a hang.",
        )
    if record.updated_at > now + SKEW_S:
        yield Finding(
            "clock",
            path,
            f"It was written {record.updated_at - now:.0f} s in the future: the"
            " clock of its node differs from the file system's. Liveness is not affected.",
        )
    if record.status != "orphaned" and record.run_dir.name != record.run_id:
        yield Finding(
            "renamed",
            path,
            f"The directory does not bear its run's id, {record.run_id!r}. It was"
            " copied or renamed.",
        )


def _half_made(cache_dir: Path, now: float) -> Iterator[Finding]:
    for meta in cache_dir.glob("runs/*/*/*/run_meta.json"):
        folder = meta.parent
        try:
            old = now - meta.stat().st_mtime > OLD_S
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries]
        except OSError:
            continue
        if "sidecar.json" not in names and old:
            yield Finding(
                "half-made",
                str(folder),
                "A run was begun here and ended before it recorded"
                " anything. The directory may be deleted.",
            )
        leftovers = [name for name in names if name.startswith(".") and name.endswith(".tmp")]
        if leftovers and old:
            yield Finding(
                "leftover",
                str(folder),
                f"Temporary files of a killed writer: {leftovers[:3]}. A"
                " run that has ended does not need them.",
            )


def _index(registry: Registry) -> Iterator[Finding]:
    if is_network(registry.db_path.parent):
        yield Finding(
            "index",
            str(registry.db_path),
            "The index is on a network file system, where SQLite's"
            " locks are slow or missing. Leave out --db, and it moves to ~/.cache.",
        )
