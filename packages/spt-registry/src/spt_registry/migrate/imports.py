"""One run of another tracker, and how it becomes a run directory."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from spt_registry._metrics_file import csv_lines
from spt_registry.run.files import atomic_write_json, atomic_write_text, flatten, to_json
from spt_registry.sidecar import (
    LAST_SECOND,
    TERMINAL,
    make_sidecar,
    write_hparams,
    write_sidecar,
)


@dataclass
class ForeignRun:
    """A run as another tracker tells.

    Attributes:
        run_id: Its id there.
        status: One of ours.
        created_at: Unix time.
        ended_at: Unix time, or ``None`` if unknown.
        hparams: Nested or flat.
        summary: Last values; taken from ``rows`` where there are any.
        rows: Logged rows, each with ``step``.
        tags: Labels.
        notes: Free text.
        checkpoint_path: Best checkpoint.
        run_dir: A directory of ours it has already, which gets only what is missing.
    """

    run_id: str
    status: str = "completed"
    created_at: float = 0.0
    ended_at: float | None = None
    hparams: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    tags: Sequence[str] = ()
    notes: str = ""
    checkpoint_path: str | None = None
    run_dir: Path | None = None


@dataclass
class MigrationReport:
    """What a migration did.

    Attributes:
        written: Runs written.
        existing: Runs that were there already.
        missing: Runs whose directory is gone.
        problems: What could not be read, in sentences.
    """

    written: int = 0
    existing: int = 0
    missing: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"migrate: {self.written} written, {self.existing} existing, {self.missing} missing, "
            f"{len(self.problems)} problems"
        )


def write_run(
    cache_dir: Path, run: ForeignRun, report: MigrationReport, *, overwrite: bool, dry_run: bool
) -> None:
    """Write a run's directory, its sidecar last, unless it is there."""
    created = run.created_at if 0 < run.created_at < LAST_SECOND else 0.0
    folder = run.run_dir or _place(cache_dir, safe_name(run.run_id), created)
    if (folder / "sidecar.json").exists() and not overwrite:
        report.existing += 1
        return
    report.written += 1
    if dry_run:
        return
    folder.mkdir(parents=True, exist_ok=True)
    hparams = to_json(flatten(run.hparams))
    if run.rows:
        names = dict.fromkeys(["step", *(name for row in run.rows for name in row)])
        head = csv_lines(list(names), [{name: name for name in names}])
        atomic_write_text(folder / "metrics.csv", head + csv_lines(list(names), run.rows))
    write_hparams(folder, hparams)
    sidecar = make_sidecar(
        safe_name(run.run_id) if run.run_dir is None else folder.name,
        folder,
        status=run.status if run.status in TERMINAL else "interrupted",
        created_at=created,
        updated_at=run.ended_at or created,
        ended_at=run.ended_at,
        tags=list(dict.fromkeys(map(str, run.tags))),
        notes=run.notes,
        hparams=hparams,
        summary=to_json({**numbers(run.summary), **_last(run.rows)}),
        checkpoint_path=run.checkpoint_path,
    )
    atomic_write_json(
        folder / "run_meta.json", {"run_id": sidecar["run_id"], "launcher": "migrated"}
    )
    write_sidecar(folder / "sidecar.json", sidecar)


def _place(cache_dir: Path, run_id: str, created_at: float) -> Path:
    day = time.strftime("%Y%m%d/%H%M%S", time.localtime(created_at))
    return cache_dir / "runs" / day / run_id


def safe_name(run_id: str) -> str:
    """An id that is a safe file name; a strange one keeps its letters and gets a hash.

    Example:
        >>> safe_name("a1b2"), safe_name("../x")
        ('a1b2', 'x-d6b96a97')
    """
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", run_id):
        return run_id
    mark = sha256(run_id.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return f"{re.sub('[^A-Za-z0-9_]', '-', run_id)[:100]}-{mark}".lstrip("-_") or mark


def numbers(values: dict[str, Any]) -> dict[str, float]:
    """Only what is a number."""
    return {
        str(name): value
        for name, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def _last(rows: list[dict[str, Any]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for row in rows:
        found.update({k: v for k, v in row.items() if k != "step" and not _absent(v)})
    return found


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def inside(folder: Path, root: Path) -> bool:
    """Whether a directory lies below a root, links followed."""
    real = os.path.realpath(folder)
    return real.startswith(os.path.realpath(root) + os.sep)
