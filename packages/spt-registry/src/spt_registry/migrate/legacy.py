"""A ``registry.db`` of the times when a server wrote it: the table ``runs``."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spt_registry.migrate.imports import ForeignRun, MigrationReport, inside

JSON_COLUMNS = {"config": dict, "hparams": dict, "summary": dict, "tags": list}


def legacy_runs(source: Path, cache_dir: Path, report: MigrationReport) -> Iterator[ForeignRun]:
    """The runs whose directories still exist below the cache directory.

    A directory elsewhere is a problem, not a place to write to. Where the cache directory was moved,
    the part of the path from ``runs/`` on is looked for in the new one.

    Raises:
        ValueError: If the file is no such database.
    """
    for row in _rows(source):
        run_id, recorded = str(row.get("run_id")), row.get("run_dir")
        if not recorded:
            report.problems.append(f"{run_id} has no run_dir in {source}.")
            continue
        folder = _find(Path(str(recorded)), cache_dir)
        if folder is None:
            report.missing += 1
        elif not inside(folder, cache_dir):
            report.problems.append(f"{run_id} lies outside of {cache_dir}, in {recorded}.")
        else:
            yield _run(run_id, folder, row)


def _find(recorded: Path, cache_dir: Path) -> Path | None:
    parts = recorded.parts
    moved = [cache_dir.joinpath(*parts[i:]) for i, part in enumerate(parts) if part == "runs"]
    return next((path for path in (recorded, *moved) if path.is_dir()), None)


def _rows(source: Path) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:  # SQLite may write beside a database it reads
        for suffix in ("", "-wal"):
            beside = source.with_name(source.name + suffix)
            if beside.exists():
                shutil.copyfile(beside, Path(folder) / f"copy.db{suffix}")
        connection = sqlite3.connect(f"{folder}/copy.db")
        connection.row_factory = sqlite3.Row
        try:
            rows = [dict(row) for row in connection.execute("SELECT * FROM runs")]
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{source} is no registry.db with a table `runs`: {error}.") from error
        finally:
            connection.close()
    if rows and "run_id" not in rows[0]:
        raise ValueError(f"The table `runs` of {source} has no run_id; it has {list(rows[0])}.")
    return rows


def _run(run_id: str, folder: Path, row: dict[str, Any]) -> ForeignRun:
    values = {name: _json(row.get(name), kind) for name, kind in JSON_COLUMNS.items()}
    status = str(row.get("status") or "")
    return ForeignRun(
        run_id=run_id,
        status="completed" if status == "finished" else status,
        created_at=_time(row.get("created_at")) or 0.0,
        ended_at=_time(row.get("updated_at")),
        hparams={**values["config"], **values["hparams"]},
        summary=values["summary"],
        tags=values["tags"],
        notes=str(row.get("notes") or ""),
        checkpoint_path=row.get("checkpoint_path"),
        run_dir=folder,
    )


def _json(text: Any, kind: type) -> Any:
    try:
        value = json.loads(text) if text else kind()
    except (TypeError, ValueError):
        return kind()
    return value if isinstance(value, kind) else kind()


def _time(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
