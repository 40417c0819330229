"""Commands about one run, or few: ``show``, ``diff``, ``history``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from spt_registry.cli._options import complete_run, find_run, open_place, place
from spt_registry.cli._output import plain, show_json, show_rows


@click.command()
@click.argument("run_id", shell_complete=complete_run)
@place
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def show(run_id: str, cache_dir: Path | None, db: Path | None, as_json: bool) -> None:
    """Show all about one run; a unique beginning of its id is enough.

    \b
    Examples:
      spt-registry show a3f1
      spt-registry show 1234_7 --json | jq '."summary.eval/knn_acc"'
    """
    from spt_registry.index.export import json_row

    record = find_run(open_place(cache_dir, db), run_id)
    row: dict[str, Any] = json_row(record)
    if as_json:
        show_json([{**row, "error": record.error, "attempts": record.attempts}])
        return
    for key in ("created_at", "updated_at"):
        row[key] = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row[key]))
    row["attempts"] = len(record.attempts)
    lines = str(record.error or "").splitlines()
    if lines:
        row["error"] = lines[-1]
    show_rows(["key", "value"], list(row.items()))
    if sys.stdout.isatty() and lines:
        click.echo("\n" + "\n".join(map(plain, lines)))


@click.command()
@click.argument("run_ids", nargs=-1, required=True, shell_complete=complete_run)
@place
@click.option("--metrics", is_flag=True, help="Compare last metrics, too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def diff(
    run_ids: tuple[str, ...], cache_dir: Path | None, db: Path | None, metrics: bool, as_json: bool
) -> None:
    """Show the hyper-parameters in which RUN_IDS differ.

    \b
    Examples:
      spt-registry diff a3f1 77c0
      spt-registry diff 12_0 12_1 12_2 --metrics
    """
    from spt_registry.index.compare import differing

    if len(run_ids) < 2:
        raise click.UsageError("Give two or more run ids.")
    registry = open_place(cache_dir, db)
    records = [find_run(registry, run_id) for run_id in run_ids]
    rows = differing([record.hparams for record in records])
    if metrics:
        found = differing([record.summary for record in records])
        rows |= {f"summary.{key}": values for key, values in found.items()}
    names = [record.run_id for record in records]
    if as_json:
        show_json({"key": key, "values": values} for key, values in rows.items())
    elif rows:
        show_rows(["key", *names], [(key, *values) for key, values in rows.items()])
    else:
        click.echo("They do not differ.", err=True)


@click.command()
@click.argument("run_id", shell_complete=complete_run)
@click.argument("metrics", nargs=-1)
@place
@click.option("-n", "--last", type=click.IntRange(min=1), help="Only the last so many rows.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def history(
    run_id: str,
    metrics: tuple[str, ...],
    cache_dir: Path | None,
    db: Path | None,
    last: int | None,
    as_json: bool,
) -> None:
    """Print the logged rows of a run: all METRICS, or those named.

    \b
    Examples:
      spt-registry history a3f1 fit/loss eval/knn_acc
      spt-registry history a3f1 -n 20 --json
    """
    from spt_registry.index.history import read_history

    record = find_run(open_place(cache_dir, db), run_id)
    try:
        frame = read_history(record.run_dir, list(metrics) or None)
    except KeyError as error:
        raise click.ClickException(str(error.args[0])) from error
    frame = frame if last is None else frame.tail(last)
    cells = frame.astype(object).where(frame.notna(), None)
    if as_json:
        show_json(cells.to_dict("records"))
    else:
        show_rows(list(frame.columns), cells.values.tolist())
