"""Questions to the index."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger

from spt_registry.index.scan import ScanReport, connect, scan

if TYPE_CHECKING:
    import pandas as pd

HEARTBEAT_TIMEOUT_S = 180.0


@dataclass(frozen=True)
class RunRecord:
    """One run, as its sidecar tells.

    Attributes:
        run_id: Its id.
        status: ``running``, ``completed``, ``failed``, ``preempted`` or ``interrupted``; ``lost``
            when it says it is running and its heart has stopped, ``missing`` when its
            directory is gone.
        alive: Whether it is running and its heart beats.
        run_dir: Where it is now.
        created_at: Unix time.
        updated_at: Unix time of the last write.
        tags: Labels.
        notes: Free text.
        hparams: Flat hyper-parameters.
        config: The nested configuration.
        summary: Last value of each metric.
        checkpoint_path: Best checkpoint, or the last without a monitored one.
        error: What ended a failed run.
    """

    run_id: str
    status: str
    alive: bool
    run_dir: Path
    created_at: float
    updated_at: float
    tags: tuple[str, ...]
    notes: str
    hparams: dict[str, Any]
    config: dict[str, Any]
    summary: dict[str, float]
    checkpoint_path: str | None
    error: str | None

    def get(self, key: str) -> Any:
        """A field, or the value of ``summary.K``, ``hparams.K`` or a metric named ``key``."""
        for prefix, values in (("summary.", self.summary), ("hparams.", self.hparams)):
            if key.startswith(prefix):
                return values.get(key[len(prefix) :])
        return self.summary[key] if key in self.summary else getattr(self, key, None)


class Registry:
    """The runs of a cache directory; see :func:`open_registry`.

    Args:
        cache_dir: Root of the runs.
        db_path: The index.
    """

    def __init__(self, cache_dir: Path, db_path: Path) -> None:
        self.cache_dir = cache_dir
        self.db_path = db_path

    def scan(self, *, full: bool = False) -> ScanReport:
        """Bring the index up to date; broken sidecars are named in a warning."""
        report = scan(self.cache_dir, self.db_path, full=full)
        for path in report.broken:
            logger.warning(f"{path} is not a readable sidecar; the run is left out.")
        return report

    def records(self) -> Iterator[RunRecord]:
        """All runs, newest first."""
        connection = connect(self.db_path)
        try:
            rows = connection.execute("SELECT path, sidecar, missing FROM runs").fetchall()
        finally:
            connection.close()
        now = time.time()
        found = [self._record(path, json.loads(text), bool(gone), now) for path, text, gone in rows]
        yield from sorted(found, key=lambda record: (-record.created_at, record.run_id))

    def _record(self, path: str, sidecar: dict[str, Any], gone: bool, now: float) -> RunRecord:
        run_dir = self.cache_dir / path
        status = str(sidecar.get("status", "running"))
        alive = status == "running" and not gone and _beats(run_dir / "heartbeat", now)
        if status == "running" and not alive:
            status = "lost"
        return RunRecord(
            run_id=str(sidecar["run_id"]),
            status="missing" if gone else status,
            alive=alive,
            run_dir=run_dir,
            created_at=float(sidecar.get("created_at") or 0.0),
            updated_at=float(sidecar.get("updated_at") or 0.0),
            tags=tuple(map(str, sidecar.get("tags") or ())),
            notes=str(sidecar.get("notes") or ""),
            hparams=dict(sidecar.get("hparams") or {}),
            config=dict(sidecar.get("config") or {}),
            summary=dict(sidecar.get("summary") or {}),
            checkpoint_path=sidecar.get("checkpoint_path"),
            error=sidecar.get("error"),
        )

    def query(
        self,
        *,
        tag: str | None = None,
        status: str | None = None,
        alive: bool | None = None,
        hparams: Mapping[str, Any] | None = None,
        sort_by: str | None = None,
        descending: bool = True,
        limit: int | None = None,
    ) -> list[RunRecord]:
        """Runs that fit all conditions, newest first or sorted.

        Args:
            tag: A label the run has.
            status: See :class:`RunRecord`.
            alive: Whether its heart beats.
            hparams: Values of flat hyper-parameters.
            sort_by: A metric, ``summary.K``, ``hparams.K`` or a field; runs without a finite
                value come last either way.
            descending: Largest first.
            limit: Most runs to return, after all conditions.
        """
        found = [
            record
            for record in self.records()
            if (tag is None or tag in record.tags)
            and (status is None or record.status == status)
            and (alive is None or record.alive == alive)
            and all(record.hparams.get(key) == value for key, value in (hparams or {}).items())
        ]
        if sort_by is not None:
            found = sort_records(found, sort_by, descending=descending)
        return found[:limit] if limit is not None else found

    def get(self, run_id: str) -> RunRecord | None:
        """The run of that id, or of that unique beginning of one; else ``None``.

        Raises:
            ValueError: If several ids begin so.
        """
        records = list(self.records())
        exact = [record for record in records if record.run_id == run_id]
        found = exact or [record for record in records if record.run_id.startswith(run_id)]
        if len(found) > 1:
            names = sorted({str(record.run_dir) for record in found})
            raise ValueError(f"{run_id!r} names {len(found)} runs: {names[:5]}.")
        return found[0] if found else None

    def __getitem__(self, run_id: str) -> RunRecord:
        record = self.get(run_id)
        if record is None:
            raise KeyError(f"No run {run_id!r} in {self.cache_dir}.")
        return record

    def __len__(self) -> int:
        return sum(1 for _ in self.records())

    def __repr__(self) -> str:
        return f"Registry({str(self.cache_dir)!r}, {len(self)} runs)"

    def history(self, run_id: str) -> pd.DataFrame:
        """The logged metrics of a run, one row per call, missing values NaN.

        Raises:
            KeyError: If there is no such run.
            FileNotFoundError: If it has logged nothing.
        """
        import pandas as pd

        return pd.read_csv(self[run_id].run_dir / "metrics.csv", on_bad_lines="skip")

    def to_dataframe(self, **conditions: Any) -> pd.DataFrame:
        """Runs as a table; hyper-parameters and metrics are columns. Arguments as :meth:`query`."""
        import pandas as pd

        return pd.DataFrame([as_row(record) for record in self.query(**conditions)])


def as_row(record: RunRecord) -> dict[str, Any]:
    """A record as one flat row."""
    names = ("run_id", "status", "alive", "created_at", "updated_at", "notes", "checkpoint_path")
    return {
        **{name: getattr(record, name) for name in names},
        "run_dir": str(record.run_dir),
        "tags": ",".join(record.tags),
        **{f"hparams.{key}": value for key, value in sorted(record.hparams.items())},
        **{f"summary.{key}": value for key, value in sorted(record.summary.items())},
    }


def sort_records(records: list[RunRecord], key: str, *, descending: bool) -> list[RunRecord]:
    """Sort by a value; records without a comparable one come last, ties by creation."""

    def comparable(value: Any) -> bool:
        return isinstance(value, (int, float)) and math.isfinite(value)

    numbers = [record for record in records if comparable(record.get(key))]
    words = [record for record in records if isinstance(record.get(key), str)]
    rest = [r for r in records if not comparable(r.get(key)) and not isinstance(r.get(key), str)]
    numbers.sort(key=lambda record: record.get(key), reverse=descending)
    words.sort(key=lambda record: record.get(key), reverse=descending)
    return [*numbers, *words, *rest]


def _beats(heartbeat: Path, now: float) -> bool:
    try:
        return abs(now - os.stat(heartbeat).st_mtime) < HEARTBEAT_TIMEOUT_S
    except OSError:
        return False


def open_registry(
    db_path: str | Path | None = None,
    *,
    cache_dir: str | Path | None = None,
    scan: bool = True,
) -> Registry:
    """Open the registry of a cache directory.

    Args:
        db_path: The index; ``{cache_dir}/registry.db`` by default.
        cache_dir: Root of the runs; the environment variable ``SPT_CACHE_DIR`` by default.
        scan: Bring the index up to date first.

    Raises:
        FileNotFoundError: If the cache directory does not exist.
        ValueError: If none is given.
    """
    cache_dir = cache_dir or os.environ.get("SPT_CACHE_DIR")
    if not cache_dir:
        raise ValueError(
            "Which cache directory? Give `cache_dir`, or set the environment variable "
            "SPT_CACHE_DIR."
        )
    root = Path(cache_dir).expanduser().absolute()
    if not root.is_dir():
        raise FileNotFoundError(f"There is no cache directory {str(root)!r}.")
    registry = Registry(root, Path(db_path) if db_path else root / "registry.db")
    if scan:
        registry.scan()
    return registry
