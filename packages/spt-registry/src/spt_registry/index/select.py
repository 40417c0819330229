"""SELECT statements about runs, all values bound."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spt_registry.index.store import IS_OPEN
from spt_registry.index.walk import in_parallel
from spt_registry.index.where import Clause, field, has_tag, parse
from spt_registry.liveness import heartbeat_mtime, is_alive
from spt_registry.run.files import file_system_time, to_json

VIEW = """
CREATE TEMP VIEW now AS SELECT runs.*, CASE
    WHEN orphaned_at IS NOT NULL THEN 'orphaned'
    WHEN status = 'running' AND path NOT IN (SELECT path FROM beating) THEN 'lost'
    ELSE status END AS now_status,
    path IN (SELECT path FROM beating) AS alive
FROM runs
"""


def note_beating(connection: sqlite3.Connection, cache_dir: Path) -> None:
    """Make the view ``now``, in which runs have the status and liveness of this moment.

    Only hearts of runs without a final status are looked at.
    """
    open_runs = connection.execute(f"SELECT path, status FROM runs WHERE {IS_OPEN}").fetchall()
    alive: list[tuple[str]] = []
    if open_runs:
        now = file_system_time(cache_dir)
        beats = in_parallel(lambda run: heartbeat_mtime(f"{cache_dir}/{run[0]}"), open_runs)
        pairs = zip(open_runs, beats, strict=True)
        alive = [(path,) for (path, status), beat in pairs if is_alive(status, beat, now)]
    connection.execute("CREATE TEMP TABLE beating (path TEXT PRIMARY KEY) WITHOUT ROWID")
    connection.executemany("INSERT INTO beating VALUES (?)", alive)
    connection.execute(VIEW)


def conditions(
    *,
    tag: str | None = None,
    status: str | None = None,
    alive: bool | None = None,
    hparams: Mapping[str, Any] | None = None,
    where: str | None = None,
) -> Clause:
    """All conditions joined."""
    parts = []
    if tag is not None:
        parts.append(has_tag(tag))
    if status is not None:
        parts.append(Clause("now_status = ?", (status,)))
    if alive is not None:
        parts.append(Clause("alive = ?", (int(alive),)))
    parts += [_equals(key, value) for key, value in (hparams or {}).items()]
    if where is not None:
        parts.append(parse(where))
    values = tuple(value for part in parts for value in part.values)
    return Clause(" AND ".join(part.sql for part in parts) or "1", values)


def _equals(key: str, value: Any) -> Clause:
    found = field(f"hparams.{key}")
    value = to_json(value)
    if value is None:
        exists = "EXISTS (SELECT 1 FROM json_each(hparams) WHERE key = ?)"
        return Clause(f"({exists} AND {found.sql} IS NULL)", (key, *found.values))
    if isinstance(value, (list, dict)):
        value = json.dumps(value, separators=(",", ":"))
    if isinstance(value, int) and abs(value) >= 2**63:
        value = float(value)
    return Clause(f"{found.sql} = ?", (*found.values, value))


def select(
    columns: str,
    fit: Clause,
    *,
    column_values: Sequence[Any] = (),
    sort_by: str | None = None,
    descending: bool = True,
    limit: int | None = None,
) -> Clause:
    """A whole statement: newest first, or sorted with finite numbers first, then text, then the rest.

    Args:
        columns: What to select from the view ``now``.
        fit: Which runs.
        column_values: Values of the question marks in ``columns``.
        sort_by: A field, ``summary.K``, ``hparams.K`` or a metric.
        descending: Largest first; runs without a value come last either way.
        limit: Most rows, after all conditions.

    Raises:
        ValueError: If the limit is negative.
    """
    if limit is not None and limit < 0:
        raise ValueError(f"`limit` must be at least 0 or None, got {limit}.")
    order, values = "created_at DESC, path", (*column_values, *fit.values)
    if sort_by is not None:
        key = field(sort_by)
        columns, values = (
            f"{columns}, {key.sql} AS sort_key",
            (*column_values, *key.values, *fit.values),
        )
        rank = (
            "CASE WHEN typeof(sort_key) = 'text' THEN 1 "
            "WHEN abs(sort_key) <= 1.7976931348623157e308 THEN 0 ELSE 2 END"
        )
        order = f"{rank}, sort_key {'DESC' if descending else 'ASC'}, {order}"
    sql = f"SELECT {columns} FROM now WHERE {fit.sql} ORDER BY {order}"
    return Clause(sql, values) if limit is None else Clause(f"{sql} LIMIT ?", (*values, limit))
