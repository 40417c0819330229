"""Commands about many runs: ``ls``, ``best``, ``export``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from spt_registry.cli._options import complete_metric, open_place, place, which_runs
from spt_registry.cli._output import show_json, show_rows
from spt_registry.index.query import Registry
from spt_registry.index.where import FIELDS


@click.command()
@place
@which_runs
@click.option("--sort", shell_complete=complete_metric, help="A metric, hparams.K or a field.")
@click.option("--asc", is_flag=True, help="Smallest first.")
@click.option("-n", "--limit", type=click.IntRange(min=0), help="At most so many runs.")
@click.option("--columns", help="Comma-separated metrics, hparams.K or fields to show.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.option("--watch", type=click.FloatRange(min=0.1), help="Show again every so many seconds.")
def ls(
    cache_dir: Path | None,
    db: Path | None,
    sort: str | None,
    asc: bool,
    limit: int | None,
    columns: str | None,
    as_json: bool,
    watch: float | None,
    **conditions: Any,
) -> None:
    """List runs, newest first.

    \b
    Examples:
      spt-registry ls --cache-dir ~/runs
      spt-registry ls --tag resnet50 --status completed --sort eval/knn_acc
      spt-registry ls --alive --columns eval/knn_acc,hparams.optim.lr --watch 10
      spt-registry ls --where 'fit/loss < 0.5 and "sweep:12" in tags' --json
    """
    query = {**conditions, "sort_by": sort, "descending": not asc, "limit": limit}
    while True:
        registry = open_place(cache_dir, db)
        if watch is not None and sys.stdout.isatty():
            click.clear()
        if as_json:
            from spt_registry.index.export import json_row

            show_json(map(json_row, registry.query(**query)))
        else:
            _show_table(registry, columns.split(",") if columns else None, query)
        if watch is None:
            return
        time.sleep(watch)


def _show_table(registry: Registry, names: list[str] | None, query: dict[str, Any]) -> None:
    if names is None:
        names = first_metrics(registry, query)
    rows = registry.table(["run_id", "status", "created_at", "tags", *names], **query)
    tags = json.loads(f"[{','.join(row[3] for row in rows)}]")  # at once, which is faster
    lines = [
        (run_id, status, _minute(created), labels, *values)
        for (run_id, status, created, _, *values), labels in zip(rows, tags, strict=True)
    ]
    show_rows(["run_id", "status", "created", "tags", *names], lines)
    if not rows:
        click.echo("No runs found.", err=True)


def first_metrics(registry: Registry, query: dict[str, Any]) -> list[str]:
    """The first five metrics, by name, of the first hundred runs."""
    few = {**query, "limit": min(100, 100 if query["limit"] is None else query["limit"])}
    found = {name for record in registry.query(**few) for name in record.summary}
    return [name if name not in FIELDS else f"summary.{name}" for name in sorted(found)[:5]]


def _minute(created_at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(created_at))


@click.command()
@click.argument("metric", shell_complete=complete_metric)
@place
@which_runs
@click.option("-n", "--limit", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--asc", is_flag=True, help="Smallest first, for losses.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def best(
    metric: str,
    cache_dir: Path | None,
    db: Path | None,
    limit: int,
    asc: bool,
    as_json: bool,
    **conditions: Any,
) -> None:
    """Show the completed runs that are best by METRIC.

    \b
    Examples:
      spt-registry best eval/knn_acc
      spt-registry best fit/loss --asc -n 10 --tag sweep:12
    """
    registry = open_place(cache_dir, db)
    query = {**conditions, "status": conditions["status"] or "completed"}
    found = registry.query(**query, sort_by=metric, descending=not asc, limit=limit)
    having = [record for record in found if isinstance(record.get(metric), (int, float))]
    having = [record for record in having if abs(record.get(metric)) < float("inf")]
    if not having:
        known = sorted({name for r in registry.query(**query, limit=1000) for name in r.summary})
        raise click.ClickException(
            f"No {query['status']} run has a number for {metric!r}; there are "
            f"{', '.join(known) or 'no metrics at all'}."
        )
    if as_json:
        names = ("run_id", metric, "tags", "run_dir", "checkpoint_path")
        show_json({name: _json(record.get(name)) for name in names} for record in having)
        return
    rows = [(r.run_id, r.get(metric), r.tags, r.run_dir, r.checkpoint_path) for r in having]
    show_rows(["run_id", metric, "tags", "run_dir", "checkpoint"], rows)


def _json(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


@click.command()
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path), default="runs.csv")
@place
@which_runs
@click.option("--format", "form", help="csv, parquet or json; by default OUT's suffix, or csv.")
def export(
    out: Path, cache_dir: Path | None, db: Path | None, form: str | None, **conditions: Any
) -> None:
    """Write the table of runs to OUT: CSV, Parquet, or JSON lines.

    \b
    Examples:
      spt-registry export runs.parquet --tag sweep:12
      spt-registry export best.csv --where 'eval/knn_acc > 0.9'
      duckdb -c "SELECT * FROM 'runs.parquet'"
    """
    from spt_registry.index.export import FORMATS, write_table

    form = form or {"jsonl": "json"}.get(out.suffix[1:], out.suffix[1:] or "csv")
    if form not in FORMATS:
        raise click.UsageError(f"OUT must end with .csv, .parquet or .json, got {str(out)!r}.")
    records = open_place(cache_dir, db).query(**conditions)
    if not out.parent.is_dir():
        raise click.ClickException(f"There is no folder {str(out.parent)!r}.")
    write_table(records, out, form)
    click.echo(f"{len(records)} runs in {out}")
