"""The command ``web``."""

from __future__ import annotations

from pathlib import Path

import click

from spt_registry.cli._options import open_place, place


@click.command()
@place
@click.option("--port", type=click.IntRange(0, 65535), default=4242, show_default=True)
def web(cache_dir: Path | None, db: Path | None, port: int) -> None:
    """Show the runs in a browser on this machine; nothing can be changed there.

    From elsewhere, forward the port: ssh -L 4242:127.0.0.1:4242 HOST.

    \b
    Examples:
      spt-registry web --cache-dir ~/runs
      spt-registry web --port 0
    """
    from spt_registry.web import serve

    try:
        serve(open_place(cache_dir, db), port)
    except OSError as error:
        raise click.ClickException(f"Port {port} cannot be used: {error.strerror}.") from error
