"""An MLflow file store: ``{store}/{experiment}/{run}/{meta.yaml,params,metrics,tags}``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spt_registry.migrate.imports import ForeignRun, MigrationReport

STATUS = {1: "interrupted", 2: "interrupted", 3: "completed", 4: "failed", 5: "interrupted"}
NOTE = "mlflow.note.content"


def mlflow_runs(source: Path, cache_dir: Path, report: MigrationReport) -> Iterator[ForeignRun]:
    """All runs that are not deleted; each bears the tag ``experiment:NAME``."""
    for meta in sorted(source.glob("*/*/meta.yaml")):
        experiment, folder = meta.parent.parent, meta.parent
        if experiment.name == ".trash" or folder.name in ("models", "tags"):
            continue
        try:
            described = _yaml(meta)
            name = _yaml(experiment / "meta.yaml").get("name", experiment.name)
            if described.get("lifecycle_stage", "active") == "active":
                yield _run(folder, described, str(name))
        except (OSError, ValueError, TypeError) as error:
            report.problems.append(f"{folder} is no readable MLflow run: {error}.")


def _yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is no YAML") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} holds no mapping")
    return value


def _run(folder: Path, meta: dict[str, Any], experiment: str) -> ForeignRun:
    tags = _texts(folder / "tags")
    ended = meta.get("end_time")
    return ForeignRun(
        run_id=str(meta.get("run_id") or folder.name),
        status=STATUS.get(int(meta.get("status", 1)), "interrupted"),
        created_at=float(meta.get("start_time") or 0) / 1000,
        ended_at=float(ended) / 1000 if ended else None,
        hparams=_texts(folder / "params"),
        rows=_rows(folder / "metrics"),
        tags=[
            f"experiment:{experiment}",
            *(f"{key}:{value}" for key, value in tags.items() if not key.startswith("mlflow.")),
        ],
        notes=tags.get(NOTE) or str(meta.get("run_name") or ""),
    )


def _texts(folder: Path) -> dict[str, str]:
    """Files by their path below a folder; keys of MLflow may hold slashes."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(f.relative_to(folder)): f.read_text(encoding="utf-8") for f in files}


def _rows(folder: Path) -> list[dict[str, Any]]:
    """Lines ``timestamp value step`` of each metric, joined by step and occurrence."""
    rows: dict[tuple[int, int], dict[str, Any]] = {}
    for name, text in _texts(folder).items():
        seen: Counter[int] = Counter()
        for line in text.splitlines():
            cells = line.split()
            if len(cells) < 2:
                continue
            step = int(cells[2]) if len(cells) > 2 else 0
            row = rows.setdefault((step, seen[step]), {"step": step})
            row[name] = float(cells[1])
            seen[step] += 1
    return [rows[key] for key in sorted(rows)]
