"""Remember in a checkpoint which tracked run it belongs to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import lightning as pl
from lightning.pytorch.loggers import Logger
from loguru import logger

from spt_callbacks._files import write_text


class TrackerCheckpoint(pl.Callback):
    """Store a tracker's identity with each checkpoint; a subclass says which tracker's.

    The identity goes into the checkpoint under the tracker's name, and on rank 0 into
    ``{name}_resume.json`` in the Trainer's ``default_root_dir``, from which a later process can
    resume the tracked run before it starts it. On load, it is compared with the running logger's.
    """

    tracker: ClassVar[str]
    logger_class: ClassVar[str]

    def identity(self, tracked: Logger) -> dict[str, str]:
        """What names the run at the tracker; empty while the tracker has not named it.

        Args:
            tracked: The tracker's logger.
        """
        raise NotImplementedError

    def find_logger(self, trainer: pl.Trainer) -> Logger | None:
        """The Trainer's logger for this tracker.

        Raises:
            RuntimeError: If there are several.
        """
        found = [
            candidate
            for candidate in trainer.loggers
            if any(kind.__name__ == self.logger_class for kind in type(candidate).__mro__)
        ]
        if len(found) > 1:
            raise RuntimeError(
                f"{type(self).__name__} keeps one identity, got {len(found)} loggers of "
                f"{self.logger_class}."
            )
        return found[0] if found else None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse several loggers of one kind at once."""
        self.find_logger(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store the identity."""
        tracked = self.find_logger(trainer)
        identity = self.identity(tracked) if tracked is not None and trainer.is_global_zero else {}
        if identity:
            checkpoint[self.tracker] = identity
            path = Path(trainer.default_root_dir) / f"{self.tracker}_resume.json"
            write_text(path, json.dumps(identity, indent=2))

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Compare the identity."""
        tracked = self.find_logger(trainer)
        saved = checkpoint.get(self.tracker)
        if tracked is None or not saved or not trainer.is_global_zero:
            return
        current = self.identity(tracked)
        differing = {k: (v, current[k]) for k, v in saved.items() if current.get(k, v) != v}
        if differing:
            logger.error(
                f"{type(self).__name__}: the checkpoint belongs to another {self.tracker} run: "
                + ", ".join(f"{k} {old!r}, now {new!r}" for k, (old, new) in differing.items())
            )
        elif current:
            logger.info(f"{type(self).__name__}: going on with the {self.tracker} run {current}.")


class WandbCheckpoint(TrackerCheckpoint):
    """Keep the id, project and entity of Lightning's ``WandbLogger``."""

    tracker = "wandb"
    logger_class = "WandbLogger"

    def identity(self, tracked: Logger) -> dict[str, str]:
        """What names the run at Weights & Biases."""
        run: Any = tracked.experiment  # type: ignore[attr-defined]
        return _present({name: getattr(run, name, None) for name in ("id", "project", "entity")})


class TrackioCheckpoint(TrackerCheckpoint):
    """Keep the project, name and group of a Trackio logger, by its ``resume_info()``."""

    tracker = "trackio"
    logger_class = "TrackioLogger"

    def identity(self, tracked: Logger) -> dict[str, str]:
        """What names the run at Trackio."""
        info: dict[str, Any] = tracked.resume_info()  # type: ignore[attr-defined]
        return _present(info)


class SwanLabCheckpoint(TrackerCheckpoint):
    """Keep the id of SwanLab's ``SwanLabLogger`` with its project and experiment name."""

    tracker = "swanlab"
    logger_class = "SwanLabLogger"

    def identity(self, tracked: Logger) -> dict[str, str]:
        """What names the run at SwanLab; empty as long as it has no id."""
        if hasattr(tracked, "resume_info"):
            return _present(tracked.resume_info())
        run_id = getattr(tracked.experiment, "id", None)  # type: ignore[attr-defined]
        if not run_id:
            return {}
        wanted: dict[str, Any] = getattr(tracked, "_init_kwargs", {})
        names = {k: wanted.get(k) for k in ("project", "experiment_name", "group")}
        return _present({"id": run_id, **names})


def _present(values: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value}
