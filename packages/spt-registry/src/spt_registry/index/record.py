"""One run, as the index tells."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOT_FINITE: dict[str, Any] = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}
COLUMNS = (
    "path, run_id, now_status, alive, created_at, updated_at, ended_at, notes, tags, hparams, "
    "summary, rest"
)


@dataclass(frozen=True)
class RunRecord:
    """One run.

    Attributes:
        run_id: Its id.
        status: ``running``, ``completed``, ``failed``, ``preempted`` or ``interrupted``; ``lost``
            when it says it is running and its heart has stopped, ``orphaned`` when its
            directory is gone.
        alive: Whether it is running and its heart beats.
        run_dir: Where it is now.
        created_at: Unix time.
        updated_at: Unix time of the last write, which is that of the last progress.
        ended_at: Unix time, or ``None`` while it runs.
        tags: Labels.
        notes: Free text.
        hparams: Flat hyper-parameters.
        config: The nested configuration.
        summary: Last value of each metric.
        checkpoint_path: Best checkpoint, or the last without a monitored one.
        last_checkpoint_path: Last checkpoint.
        error: What ended a failed run.
        display_name: A name that a person gave.
        archived: Whether a person has put it aside.
        attempts: When and where it ran, once for each start.
    """

    run_id: str
    status: str
    alive: bool
    run_dir: Path
    created_at: float
    updated_at: float
    ended_at: float | None
    tags: tuple[str, ...]
    notes: str
    hparams: dict[str, Any]
    config: dict[str, Any]
    summary: dict[str, float]
    checkpoint_path: str | None
    last_checkpoint_path: str | None = None
    error: str | None = None
    display_name: str | None = None
    archived: bool = False
    attempts: tuple[dict[str, Any], ...] = ()

    def get(self, key: str) -> Any:
        """A field, or the value of ``summary.K``, ``hparams.K`` or a metric named ``key``."""
        for prefix, values in (("summary.", self.summary), ("hparams.", self.hparams)):
            if key.startswith(prefix):
                return values.get(key[len(prefix) :])
        return getattr(self, key) if key in self.__dataclass_fields__ else self.summary.get(key)


def as_record(cache_dir: Path, columns: tuple[Any, ...]) -> RunRecord:
    """A record from the values of ``COLUMNS``."""
    path, run_id, status, alive, created, updated, ended, notes, tags, hparams, summary, rest = (
        columns
    )
    more = json.loads(rest)
    metrics: dict[str, Any] = json.loads(summary)
    return RunRecord(
        run_id=run_id,
        status=status,
        alive=bool(alive),
        run_dir=cache_dir / path,
        created_at=created,
        updated_at=updated,
        ended_at=ended,
        tags=tuple(json.loads(tags)),
        notes=notes,
        hparams=json.loads(hparams),
        config=more.get("config") or {},
        summary={
            key: NOT_FINITE.get(value, value) if type(value) is str else value
            for key, value in metrics.items()
        },
        checkpoint_path=more.get("checkpoint_path"),
        last_checkpoint_path=more.get("last_checkpoint_path"),
        error=more.get("error"),
        display_name=more.get("display_name"),
        archived=bool(more.get("archived")),
        attempts=tuple(more.get("attempts") or ()),
    )


def as_row(record: RunRecord) -> dict[str, Any]:
    """A record as one flat row; hyper-parameters and metrics are columns."""
    return {
        "run_id": record.run_id,
        "status": record.status,
        "alive": record.alive,
        "created_at": record.created_at,
        "updated_at": record.updated_at,
        "run_dir": str(record.run_dir),
        "checkpoint_path": record.checkpoint_path,
        "tags": list(record.tags),
        "notes": record.notes,
        **{f"hparams.{key}": value for key, value in sorted(record.hparams.items())},
        **{f"summary.{key}": value for key, value in sorted(record.summary.items())},
    }
