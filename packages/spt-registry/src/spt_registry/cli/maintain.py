"""Commands about the whole: ``scan``, ``doctor``, ``migrate``, ``completion``."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict
from pathlib import Path

import click

from spt_registry.cli._options import ProgressBar, open_place, place
from spt_registry.cli._output import show_json, show_rows
from spt_registry.index.query import Registry
from spt_registry.index.scan import ScanReport


def _scan(registry: Registry, *, full: bool = False) -> ScanReport:
    try:
        with ProgressBar() as bar:
            return registry.scan(full=full, progress=bar)
    except (OSError, sqlite3.Error) as error:
        raise click.ClickException(
            f"The index {registry.db_path} cannot be written ({error}); give another with --db."
        ) from error


@click.command()
@place
@click.option("--full", is_flag=True, help="Read every sidecar, changed or not.")
def scan(cache_dir: Path | None, db: Path | None, full: bool) -> None:
    """Bring the index up to date; every other command does so by itself.

    \b
    Examples:
      spt-registry scan
      spt-registry scan --full --db /tmp/registry.db
    """
    report = _scan(open_place(cache_dir, db, scan=False), full=full)
    click.echo(str(report))
    for path, reason in report.broken.items():
        click.echo(f"warning: {path} is left out: {reason}.", err=True)
    if not report.total_sidecars:
        click.echo("There are no runs: nothing lies under runs/ of this folder.", err=True)


@click.command()
@place
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def doctor(cache_dir: Path | None, db: Path | None, as_json: bool) -> None:
    """Find broken, duplicate, orphaned, lost and half-made runs, and explain them.

    Nothing is changed. Exit code 1 if anything is found.

    \b
    Examples:
      spt-registry doctor --cache-dir ~/runs
      spt-registry doctor --json | jq -r .path
    """
    from spt_registry.index.doctor import examine

    registry = open_place(cache_dir, db, scan=False)
    findings = examine(registry, _scan(registry))
    if as_json:
        show_json(map(asdict, findings))
    elif findings:
        rows = [(one.kind, one.path, one.explanation) for one in findings]
        show_rows(["kind", "path", "explanation"], rows)
    else:
        click.echo(f"{len(registry)} runs, nothing wrong. The index is {registry.db_path}.")
    if findings:
        raise SystemExit(1)


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@place
@click.option("--overwrite", is_flag=True, help="Replace runs that are there already.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
def migrate(
    source: Path, cache_dir: Path | None, db: Path | None, overwrite: bool, dry_run: bool
) -> None:
    """Bring runs of another tracker into the cache directory; SOURCE is only read.

    SOURCE is a registry.db of the times with a server, an MLflow file store (mlruns), or a
    W&B folder with offline runs.

    \b
    Examples:
      spt-registry migrate old/registry.db --cache-dir ~/runs
      spt-registry migrate mlruns --dry-run
      spt-registry migrate wandb
    """
    from spt_registry.migrate import migrate_into

    registry = open_place(cache_dir, db, scan=False)
    try:
        report = migrate_into(registry.cache_dir, source, overwrite=overwrite, dry_run=dry_run)
    except (ValueError, OSError, sqlite3.Error) as error:
        raise click.ClickException(str(error)) from error
    for sentence in report.problems:
        click.echo(f"warning: {sentence}", err=True)
    click.echo(str(report))
    if not dry_run:
        click.echo(str(_scan(registry)))


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that makes SHELL complete commands, options, run ids and metrics.

    \b
    Examples:
      eval "$(spt-registry completion bash)"
      spt-registry completion fish > ~/.config/fish/completions/spt-registry.fish
    """
    from click.shell_completion import get_completion_class

    root = context.find_root()
    name = (root.info_name or "spt-registry").split(" ")[0]
    variable = f"_{name.replace('-', '_').upper()}_COMPLETE"
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(root.command, {}, name, variable).source())
