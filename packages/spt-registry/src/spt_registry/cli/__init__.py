"""The ``spt-registry`` command."""

from __future__ import annotations

import click

from spt_registry.cli import edit, inspect, listing, maintain
from spt_registry.cli.web import web


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Query the runs of a cache directory: plain files, no server.

    Tables are drawn on a terminal; piped output is tab-separated, or JSON with --json.
    Exit codes: 0 done, 1 nothing found or a problem found, 2 wrong usage.

    \b
    Examples:
      export SPT_CACHE_DIR=~/runs
      spt-registry ls --status completed --sort eval/knn_acc
      spt-registry best fit/loss --asc -n 10
      spt-registry diff RUN_ID RUN_ID
      eval "$(spt-registry completion bash)"
    """


for command in (
    *(listing.ls, listing.best, listing.export),
    *(inspect.show, inspect.diff, inspect.history),
    *(edit.tag, edit.note, edit.rm),
    *(maintain.scan, maintain.doctor, maintain.migrate, maintain.completion, web),
):
    cli.add_command(command)


def main() -> None:
    """Entry point of ``spt-registry``."""
    cli(prog_name="spt-registry")
