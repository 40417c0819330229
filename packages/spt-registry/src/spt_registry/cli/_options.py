"""What several commands take, and how they open the registry."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from spt_registry.index.query import Registry, open_registry
from spt_registry.index.record import RunRecord
from spt_registry.index.where import parse

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Function = TypeVar("Function", bound=Callable[..., Any])


def place(function: Function) -> Function:
    """``--cache-dir`` and ``--db``."""
    folder = click.Path(file_okay=False, path_type=Path)
    function = click.option(
        "--cache-dir", type=folder, envvar="SPT_CACHE_DIR", help="Root of the runs."
    )(function)
    return click.option(
        "--db", type=click.Path(dir_okay=False, path_type=Path), help="Another index."
    )(function)


def which_runs(function: Function) -> Function:
    """Conditions on runs; they reach the command as ``conditions``."""
    options = (
        click.option("--tag", help="Only runs with this tag."),
        click.option("--status", help="Only runs with this status, such as completed or lost."),
        click.option(
            "--alive/--dead", "alive", default=None, help="Only runs whose heart beats, or not."
        ),
        click.option(
            "--where",
            callback=_check_where,
            help="A condition, such as 'summary.acc > 0.8 and hparams.optim.lr < 1'.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def _check_where(context: click.Context, parameter: click.Parameter, text: str | None) -> Any:
    if text is not None:
        try:
            parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error
    return text


def open_place(cache_dir: Path | None, db: Path | None, *, scan: bool = True) -> Registry:
    """The registry, brought up to date; what went wrong goes to stderr."""
    try:
        registry = open_registry(db, cache_dir=cache_dir, scan=False)
        if scan:
            with ProgressBar() as bar:
                sentences = registry.refresh(bar)
            for sentence in sentences:
                click.echo(f"warning: {sentence}", err=True)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    return registry


def find_run(registry: Registry, run_id: str) -> RunRecord:
    """The run of that id, or the end of the program."""
    try:
        return registry[run_id]
    except (KeyError, ValueError) as error:
        raise click.ClickException(str(error.args[0])) from error


class ProgressBar:
    """Shows on a terminal how far a scan is, once it has taken half a second."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        """Take note of what is done."""
        if self.bar is None and sys.stderr.isatty() and time.monotonic() - self.started > 0.5:
            self.bar = click.progressbar(length=total, label="Reading runs", file=sys.stderr)
        if self.bar is not None:
            self.bar.update(done - self.bar.pos)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.render_finish()


def _complete(column: str, context: click.Context, beginning: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    folder = context.params.get("cache_dir") or os.environ.get("SPT_CACHE_DIR")
    try:
        registry = open_registry(context.params.get("db"), cache_dir=folder, scan=False)
        if column == "run_id":
            found = [row[0] for row in registry.table(["run_id"])]
        else:
            records = registry.query(limit=50)
            found = sorted({name for record in records for name in record.summary})
    except (ValueError, OSError):
        return []
    return [CompletionItem(name) for name in found if name.startswith(beginning)][:100]


def complete_run(
    context: click.Context, parameter: click.Parameter, beginning: str
) -> list[CompletionItem]:
    """Ids for the shell to offer."""
    return _complete("run_id", context, beginning)


def complete_metric(
    context: click.Context, parameter: click.Parameter, beginning: str
) -> list[CompletionItem]:
    """Metrics for the shell to offer."""
    return _complete("metric", context, beginning)
