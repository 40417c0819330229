"""Runs of other trackers, brought into a cache directory; the sources are only read."""

from __future__ import annotations

from pathlib import Path

from spt_registry.migrate.imports import MigrationReport, write_run


def migrate_into(
    cache_dir: str | Path, source: str | Path, *, overwrite: bool = False, dry_run: bool = False
) -> MigrationReport:
    """Bring the runs of a source into a cache directory.

    Args:
        cache_dir: Root of the runs.
        source: A ``registry.db`` of the times with a server; an MLflow file store (the folder
            with the experiments); a W&B folder with ``offline-run-*`` folders, or one of those.
        overwrite: Replace what an earlier migration, or the run itself, has written.
        dry_run: Write nothing.

    Returns:
        What was, or would be, done.

    Raises:
        ValueError: If the source is none of these.
    """
    source = Path(source)
    if source.is_file():
        from spt_registry.migrate.legacy import legacy_runs as runs
    elif next(source.glob("**/run-*.wandb"), None) is not None:
        from spt_registry.migrate.wandb_offline import wandb_runs as runs
    elif next(source.glob("*/*/meta.yaml"), None) is not None:
        from spt_registry.migrate.mlflow_files import mlflow_runs as runs
    else:
        raise ValueError(
            f"{source} is neither a registry.db file, nor an MLflow file store (there is no "
            "*/*/meta.yaml), nor a W&B folder (there is no run-*.wandb)."
        )
    report = MigrationReport()
    for run in runs(source, Path(cache_dir).absolute(), report):
        write_run(Path(cache_dir).absolute(), run, report, overwrite=overwrite, dry_run=dry_run)
    return report
