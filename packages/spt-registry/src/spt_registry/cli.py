"""The ``spt-registry`` command."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from spt_registry.index.query import Registry, RunRecord, as_row, open_registry

COLUMNS = ("run_id", "status", "created", "tags")


def _options(function: Callable[..., None]) -> Callable[..., None]:
    """The options that every command takes."""
    folder = click.Path(file_okay=False, path_type=Path)
    function = click.option(
        "--cache-dir", type=folder, envvar="SPT_CACHE_DIR", help="Root of the runs."
    )(function)
    return click.option("--db", type=click.Path(path_type=Path), help="Another index.")(function)


def _open(cache_dir: Path | None, db: Path | None) -> Registry:
    try:
        return open_registry(db, cache_dir=cache_dir)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _show_rows(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on a terminal, tab-separated values elsewhere."""
    if not sys.stdout.isatty():
        writer = csv.writer(sys.stdout, delimiter="\t", lineterminator="\n")
        writer.writerows([columns, *rows])
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns)
    for row in rows:
        table.add_row(*map(str, row))
    Console().print(table)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def _row(record: RunRecord, metrics: Sequence[str]) -> list[str]:
    created = datetime.fromtimestamp(record.created_at).strftime("%Y-%m-%d %H:%M")
    values = [_cell(record.get(name)) for name in metrics]
    return [record.run_id, record.status, created, ",".join(record.tags), *values]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Query the runs of a cache directory: plain files, no server."""


@cli.command()
@_options
@click.option("--tag", help="Only runs with this tag.")
@click.option("--status", help="Only runs with this status.")
@click.option("--alive/--dead", default=None, help="Only runs whose heart beats, or does not.")
@click.option("--sort", help="A metric, summary.K, hparams.K or a field.")
@click.option("--asc", is_flag=True, help="Smallest first.")
@click.option("-n", "--limit", type=click.IntRange(min=0), help="At most so many runs.")
@click.option("--columns", help="Comma-separated metrics to show.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def ls(
    cache_dir: Path | None,
    db: Path | None,
    tag: str | None,
    status: str | None,
    alive: bool | None,
    sort: str | None,
    asc: bool,
    limit: int | None,
    columns: str | None,
    as_json: bool,
) -> None:
    """List runs, newest first.

    \b
    Examples:
      spt-registry ls --cache-dir ~/runs
      spt-registry ls --tag resnet50 --status completed --sort eval/knn_acc
    """
    records = _open(cache_dir, db).query(
        tag=tag, status=status, alive=alive, sort_by=sort, descending=not asc, limit=limit
    )
    if as_json:
        for record in records:
            click.echo(json.dumps(as_row(record)))
        return
    names = columns.split(",") if columns else sorted({k for r in records for k in r.summary})[:5]
    _show_rows([*COLUMNS, *names], [_row(record, names) for record in records])


@cli.command()
@click.argument("metric")
@_options
@click.option("--tag", help="Only runs with this tag.")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--asc", is_flag=True, help="Smallest first, for losses.")
def best(
    metric: str, cache_dir: Path | None, db: Path | None, tag: str | None, limit: int, asc: bool
) -> None:
    """Show the completed runs that are best by METRIC.

    \b
    Examples:
      spt-registry best eval/knn_acc
      spt-registry best fit/loss --asc -n 10
    """
    records = _open(cache_dir, db).query(
        tag=tag, status="completed", sort_by=metric, descending=not asc
    )
    having = [record for record in records if isinstance(record.get(metric), (int, float))]
    if not having:
        known = sorted({name for record in records for name in record.summary})
        raise click.ClickException(
            f"No completed run has the metric {metric!r}; there are {known or 'none at all'}."
        )
    rows = [[r.run_id, _cell(r.get(metric)), ",".join(r.tags), r.run_dir] for r in having[:limit]]
    _show_rows(["run_id", metric, "tags", "run_dir"], rows)


@cli.command()
@click.argument("run_id")
@_options
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def show(run_id: str, cache_dir: Path | None, db: Path | None, as_json: bool) -> None:
    """Show all about one run; a unique beginning of its id is enough."""
    registry = _open(cache_dir, db)
    try:
        record = registry[run_id]
    except (KeyError, ValueError) as error:
        raise click.ClickException(str(error.args[0])) from error
    row = as_row(record)
    if as_json:
        click.echo(json.dumps(row, indent=2))
        return
    for key, value in row.items():
        click.echo(f"{key:<32} {_cell(value)}")
    if record.error:
        click.echo(f"\n{record.error}")


@cli.command(name="scan")
@_options
@click.option("--full", is_flag=True, help="Read every sidecar, changed or not.")
def scan_command(cache_dir: Path | None, db: Path | None, full: bool) -> None:
    """Bring the index up to date."""
    click.echo(str(_open(cache_dir, db).scan(full=full)))


@cli.command()
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path), default="runs.csv")
@_options
@click.option("--tag", help="Only runs with this tag.")
@click.option("--status", help="Only runs with this status.")
def export(
    out: Path, cache_dir: Path | None, db: Path | None, tag: str | None, status: str | None
) -> None:
    """Write the table of runs to OUT, CSV or Parquet by its suffix."""
    table = _open(cache_dir, db).to_dataframe(tag=tag, status=status)
    if out.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pandas(table), out)
    else:
        table.to_csv(out, index=False)
    click.echo(f"{len(table)} runs in {out}")


def main() -> None:
    """Entry point of ``spt-registry``."""
    cli(prog_name="spt-registry")
