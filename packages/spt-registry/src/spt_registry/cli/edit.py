"""Commands that change what is said about runs, or put runs aside: ``tag``, ``note``, ``rm``."""

from __future__ import annotations

from pathlib import Path

import click

from spt_registry.cli._options import complete_run, find_run, open_place, place
from spt_registry.index.trash import to_trash
from spt_registry.user_file import edit_user_file


@click.command()
@click.argument("run_id", shell_complete=complete_run)
@click.argument("tags", nargs=-1, required=True)
@place
@click.option("--remove", is_flag=True, help="Take the tags away.")
def tag(
    run_id: str, tags: tuple[str, ...], cache_dir: Path | None, db: Path | None, remove: bool
) -> None:
    """Add TAGS to a run, or remove them.

    They are kept in the run's user.json, which its process never writes.

    \b
    Examples:
      spt-registry tag a3f1 baseline paper
      spt-registry tag a3f1 paper --remove
    """
    registry = open_place(cache_dir, db)
    _edit(find_run(registry, run_id).run_dir, **{"remove_tags" if remove else "add_tags": tags})
    registry.refresh()
    click.echo(", ".join(find_run(registry, run_id).tags))


@click.command()
@click.argument("run_id", shell_complete=complete_run)
@click.argument("text")
@place
def note(run_id: str, text: str, cache_dir: Path | None, db: Path | None) -> None:
    """Replace the notes of a run by TEXT.

    \b
    Examples:
      spt-registry note a3f1 "diverged after the warm-up"
    """
    _edit(find_run(open_place(cache_dir, db), run_id).run_dir, notes=text)


def _edit(run_dir: Path, **changes: object) -> None:
    try:
        edit_user_file(run_dir, **changes)  # type: ignore[arg-type]
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error


@click.command()
@click.argument("run_ids", nargs=-1, required=True, shell_complete=complete_run)
@place
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def rm(run_ids: tuple[str, ...], cache_dir: Path | None, db: Path | None, yes: bool) -> None:
    """Move runs to the trash folder of the cache directory.

    Nothing is deleted: empty {cache_dir}/trash by hand. A run that is alive is refused; one
    whose directory is gone already is forgotten.

    \b
    Examples:
      spt-registry rm a3f1 77c0
    """
    registry = open_place(cache_dir, db)
    records = [find_run(registry, run_id) for run_id in dict.fromkeys(run_ids)]
    alive = [record.run_id for record in records if record.alive]
    if alive:
        raise click.ClickException(f"{', '.join(alive)} is running; end it first.")
    for record in records:
        click.echo(f"{record.run_id}  {record.status}  {record.run_dir}")
    if not yes:
        click.confirm(f"Move {len(records)} runs to the trash?", abort=True)
    for record in records:
        try:
            click.echo(f"{record.run_id}: {to_trash(registry, record) or 'forgotten'}")
        except OSError as error:
            raise click.ClickException(f"{record.run_dir} cannot be moved: {error}") from error
