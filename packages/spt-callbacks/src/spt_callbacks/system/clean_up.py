"""Remove what a finished run leaves behind, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import lightning as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from loguru import logger

from spt_callbacks.system.environment import EnvironmentDumpCallback


class CleanUpCallback(pl.Callback):
    """After a ``fit`` that ended well, remove the kinds of files that are not to be kept.

    Works inside the run's directory alone, the Trainer's ``default_root_dir``: whatever lies
    outside it, the directory itself, and a run directory that is the working directory, the home
    or a parent of either, is left and named. Symbolic links are removed, not followed.

    Args:
        keep_checkpoints: Keep the files that ``ModelCheckpoint``s saved.
        keep_logs: Keep the loggers' ``log_dir``.
        keep_hydra: Keep ``.hydra`` and ``hydra.log``.
        keep_slurm: Keep SLURM's output files.
        keep_env_dump: Keep what ``EnvironmentDumpCallback`` wrote.
        keep_callback_artifacts: Keep the ``artifacts`` of other callbacks.
        slurm_patterns: Globs of SLURM's files; ``slurm-*.out`` and ``slurm-*.err`` if ``None``.
        extra_patterns: Globs of more files and folders to remove.
        dry_run: Only report.

    Attributes:
        removed: What was removed (or would be).
    """

    def __init__(
        self,
        keep_checkpoints: bool = True,
        keep_logs: bool = True,
        keep_hydra: bool = False,
        keep_slurm: bool = False,
        keep_env_dump: bool = False,
        keep_callback_artifacts: bool = True,
        slurm_patterns: Sequence[str] | None = None,
        extra_patterns: Sequence[str] | None = None,
        dry_run: bool = False,
    ) -> None:
        self.keep_checkpoints = keep_checkpoints
        self.keep_logs = keep_logs
        self.keep_hydra = keep_hydra
        self.keep_slurm = keep_slurm
        self.keep_env_dump = keep_env_dump
        self.keep_callback_artifacts = keep_callback_artifacts
        self.slurm_patterns = tuple(slurm_patterns or ("slurm-*.out", "slurm-*.err"))
        self.extra_patterns = tuple(extra_patterns or ())
        self.dry_run = dry_run
        self.removed: list[Path] = []
        self._failed = False

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Keep everything: somebody will look for the reason."""
        self._failed = True

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Remove, after every other callback has ended its work with ``fit``."""
        if stage != "fit" or self._failed or not trainer.is_global_zero:
            return
        root = Path(trainer.default_root_dir).resolve()
        if not is_safe_root(root):
            logger.warning(
                f"CleanUpCallback: {root} is no directory of a run's own; nothing removed."
            )
            return
        freed = sum(self._remove(path, root) for path in self._candidates(trainer, root))
        verb = "would free" if self.dry_run else "freed"
        logger.info(f"CleanUpCallback {verb} {freed:,} bytes in {len(self.removed)} places.")

    def _candidates(self, trainer: pl.Trainer, root: Path) -> Iterable[Path]:
        callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        patterns = list(self.extra_patterns)
        patterns += [] if self.keep_slurm else self.slurm_patterns
        patterns += [] if self.keep_hydra else [".hydra", "hydra.log"]
        for pattern in patterns:
            yield from sorted(root.glob(pattern))
        if not self.keep_logs:
            yield from (Path(lg.log_dir) for lg in trainer.loggers if lg.log_dir)
        for callback in callbacks:
            if isinstance(callback, ModelCheckpoint):
                yield from () if self.keep_checkpoints else checkpoint_files(callback)
            elif isinstance(callback, EnvironmentDumpCallback):
                yield from () if self.keep_env_dump else callback.artifacts
            elif not self.keep_callback_artifacts:
                yield from map(Path, getattr(callback, "artifacts", ()))

    def _remove(self, path: Path, root: Path) -> int:
        """Remove one file or folder; the bytes that it took."""
        place = path.absolute().parent.resolve() / path.name
        if root not in place.parents:
            logger.warning(f"CleanUpCallback leaves {path}: it is not inside {root}.")
            return 0
        if not place.is_symlink() and not place.exists():
            return 0
        size = _size(place)
        try:
            if not self.dry_run:
                shutil.rmtree(place) if _is_folder(place) else place.unlink()
        except OSError as error:
            logger.warning(f"CleanUpCallback could not remove {place}: {error}")
            return 0
        self.removed.append(place)
        return size


def is_safe_root(root: Path) -> bool:
    """Whether a directory can be a run's own: not the working directory, the home, or above them."""
    guarded = [Path.cwd().resolve(), Path.home().resolve()]
    return not any(root == place or root in place.parents for place in guarded)


def checkpoint_files(callback: ModelCheckpoint) -> list[Path]:
    """The files that a ``ModelCheckpoint`` of this process saved and still knows."""
    known = {callback.last_model_path, callback.best_model_path, *callback.best_k_models}
    return sorted(Path(name) for name in known if name)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _size(path: Path) -> int:
    files = [path] if not _is_folder(path) else [p for p in path.rglob("*") if p.is_file()]
    return sum(p.lstat().st_size for p in files)
