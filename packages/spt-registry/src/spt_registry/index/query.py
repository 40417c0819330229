"""Questions to the index."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spt_registry.index.location import index_path
from spt_registry.index.record import COLUMNS, RunRecord, as_record
from spt_registry.index.scan import Progress, ScanReport, scan
from spt_registry.index.select import conditions, note_beating, select
from spt_registry.index.store import connect
from spt_registry.index.where import Clause, field

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_scanned: dict[tuple[Path, Path], float] = {}


class Registry:
    """The runs of a cache directory; see :func:`open_registry`.

    No connection stays open between two questions, so a registry may be kept for long, shared by
    threads, and its index deleted at any time.

    Args:
        cache_dir: Root of the runs.
        db_path: The index.
    """

    def __init__(self, cache_dir: Path, db_path: Path) -> None:
        self.cache_dir = cache_dir
        self.db_path = db_path

    def scan(self, *, full: bool = False, progress: Progress | None = None) -> ScanReport:
        """Bring the index up to date; the report names broken sidecars.

        Args:
            full: Read every sidecar, changed or not.
            progress: Called with the number of sidecars read and to read.

        Raises:
            OSError, sqlite3.Error: If the index cannot be written.
        """
        report = scan(self.cache_dir, self.db_path, full=full, progress=progress)
        _scanned[self.cache_dir, self.db_path] = time.monotonic()
        return report

    def refresh(self, progress: Progress | None = None) -> list[str]:
        """Scan; where the index cannot be written now, its last state serves.

        Returns:
            What a person should know, in sentences.

        Raises:
            OSError: If there is no index and none can be written.
        """
        try:
            report = self.scan(progress=progress)
        except (OSError, sqlite3.Error) as error:
            try:
                len(self)
            except (OSError, sqlite3.Error):
                raise OSError(
                    f"The index {self.db_path} cannot be written ({error}). Choose another place: "
                    "`db_path`, or --db on the command line."
                ) from error
            return [
                f"{self.db_path} cannot be brought up to date ({error}); its last state serves."
            ]
        broken = [f"{path} is left out: {reason}." for path, reason in report.broken.items()]
        closed = [f"{self.cache_dir / path} cannot be read." for path in report.unreadable]
        return broken + closed

    def query(
        self,
        *,
        tag: str | None = None,
        status: str | None = None,
        alive: bool | None = None,
        hparams: Mapping[str, Any] | None = None,
        where: str | None = None,
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
            where: A condition as text, such as ``'acc > 0.8 and hparams.optim.lr < 1'``; see
                :func:`spt_registry.index.where.parse`.
            sort_by: A field, ``summary.K``, ``hparams.K`` or a metric; runs without a value
                come last either way.
            descending: Largest first.
            limit: Most runs to return, after all conditions.

        Raises:
            ValueError: If ``where`` is not understood or the limit is negative.
        """
        fit = conditions(tag=tag, status=status, alive=alive, hparams=hparams, where=where)
        found = select(COLUMNS, fit, sort_by=sort_by, descending=descending, limit=limit)
        width = COLUMNS.count(",") + 1
        with self._rows(found) as rows:
            return [as_record(self.cache_dir, row[:width]) for row in rows]

    def table(self, columns: Sequence[str], **query: Any) -> list[tuple[Any, ...]]:
        """Values of some fields or metrics only, which is faster than whole records.

        Args:
            columns: Fields, ``summary.K``, ``hparams.K`` or metrics; tags come as JSON.
            **query: As in :meth:`query`.
        """
        sorting = {
            key: query.pop(key) for key in ("sort_by", "descending", "limit") if key in query
        }
        fields = [field(name) for name in columns]
        values = [value for one in fields for value in one.values]
        sql = ", ".join(one.sql for one in fields)
        found = select(sql, conditions(**query), column_values=values, **sorting)
        with self._rows(found) as rows:
            return [row[: len(columns)] for row in rows]

    @contextmanager
    def _rows(self, statement: Clause) -> Iterator[Iterator[tuple[Any, ...]]]:
        connection = connect(self.db_path)
        try:
            note_beating(connection, self.cache_dir)
            yield connection.execute(statement.sql, statement.values)
        finally:
            connection.close()

    def get(self, run_id: str) -> RunRecord | None:
        """The run of that id, or of that unique beginning of one; else ``None``.

        Raises:
            ValueError: If several runs have that id or ids that begin so.
        """
        found = self._matching("run_id = ?", run_id)
        found = found or self._matching("substr(run_id, 1, length(?)) = ?", run_id, run_id)
        if len(found) > 1:
            names = [f"{record.run_id} in {record.run_dir}" for record in found[:5]]
            raise ValueError(f"{run_id!r} names {len(found)} runs: {', '.join(names)}.")
        return found[0] if found else None

    def at(self, path: str) -> RunRecord | None:
        """The run whose directory has this path below the cache directory."""
        found = self._matching("path = ?", path)
        return found[0] if found else None

    def _matching(self, sql: str, *values: str) -> list[RunRecord]:
        with self._rows(select(COLUMNS, Clause(sql, values))) as rows:
            return [as_record(self.cache_dir, row) for row in rows]

    def __getitem__(self, run_id: str) -> RunRecord:
        record = self.get(run_id)
        if record is None:
            raise KeyError(f"No run {run_id!r} in {self.cache_dir}.")
        return record

    def __len__(self) -> int:
        connection = connect(self.db_path)
        try:
            return int(connection.execute("SELECT count(*) FROM runs").fetchone()[0])
        finally:
            connection.close()

    def __repr__(self) -> str:
        return f"Registry({str(self.cache_dir)!r}, {len(self)} runs, index {str(self.db_path)!r})"

    def history(self, run_id: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The logged metrics of a run, one row per call, missing values NaN.

        Args:
            run_id: Its id, or the beginning of it.
            columns: Metrics to read; all by default.

        Raises:
            KeyError: If there is no such run, or no such metric.
        """
        from spt_registry.index.history import read_history

        return read_history(self[run_id].run_dir, columns)

    def compare(self, run_ids: Sequence[str]) -> pd.DataFrame:
        """The hyper-parameters in which runs differ: one row each, one column per run.

        Args:
            run_ids: Two or more ids.
        """
        import pandas as pd

        from spt_registry.index.compare import differing

        records = [self[run_id] for run_id in run_ids]
        rows = differing([record.hparams for record in records])
        return pd.DataFrame.from_dict(
            rows, orient="index", columns=[record.run_id for record in records]
        )

    def to_dataframe(self, **query: Any) -> pd.DataFrame:
        """Runs as a table; hyper-parameters and metrics are columns. Arguments as :meth:`query`."""
        from spt_registry.index.export import to_dataframe

        return to_dataframe(self.query(**query))

    def to_arrow(self, **query: Any) -> pa.Table:
        """Runs as an Arrow table, which DuckDB and Polars read as it is. Arguments as :meth:`query`.

        A column holds one type: numbers, true and false, or else text.
        """
        from spt_registry.index.export import to_arrow

        return to_arrow(self.query(**query))

    def close(self) -> None:
        """Nothing stays open; here so that ``contextlib.closing`` works."""


def open_registry(
    db_path: str | Path | None = None,
    *,
    cache_dir: str | Path | None = None,
    scan: bool = True,
    scan_ttl_s: float = 2.0,
    progress: Progress | None = None,
) -> Registry:
    """Open the registry of a cache directory.

    Args:
        db_path: The index; by default ``{cache_dir}/registry.db``, or a private one where that
            cannot be written or is on a network file system.
        cache_dir: Root of the runs; the environment variable ``SPT_CACHE_DIR`` by default.
        scan: Bring the index up to date first.
        scan_ttl_s: Not if this process did so less than this many seconds ago.
        progress: See :meth:`Registry.scan`.

    Raises:
        FileNotFoundError: If the cache directory does not exist.
        ValueError: If none is given.
        OSError: If there is no index and none can be written.
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
    registry = Registry(root, index_path(root, db_path))
    fresh = time.monotonic() - _scanned.get((root, registry.db_path), -1e9) < scan_ttl_s
    if scan and not (fresh and registry.db_path.exists()):
        for sentence in registry.refresh(progress):
            from loguru import logger

            logger.warning(sentence)
    return registry
