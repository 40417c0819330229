"""Weights & Biases, by Lightning's ``WandbLogger``; online and offline alike."""

from __future__ import annotations

import secrets
from datetime import timedelta
from pathlib import Path
from typing import Any

from spt_manager.trackers.base import Identity, Tracker, present


class WandbTracker(Tracker):
    """Keep the id, project and entity.

    Offline, each attempt is a folder ``wandb/offline-run-*-{id}`` of the run's directory; ``wandb
    sync --append`` makes one run of them.
    """

    name = "wandb"
    logger_class = "WandbLogger"
    same = ("project", "entity")

    def identity(self, logger: Any, run_id: str) -> Identity:
        """The user's id, or a new one: W&B never gives an id again, and SLURM does."""
        wanted = logger._wandb_init
        new = wanted.get("id") or secrets.token_hex(4)
        return present({"id": new, **{name: wanted.get(name) for name in self.same}})

    def anchor(self, logger: Any, run_dir: Path, identity: Identity, resumed: bool) -> None:
        """Write below the run's directory under the id."""
        logger._wandb_init.update(id=identity["id"], resume="allow", dir=str(run_dir))
        if logger._offline:  # Lightning sets a variable, which a client once set up does not read
            logger._wandb_init["mode"] = "offline"
        logger._id, logger._save_dir = identity["id"], str(run_dir)

    def end(self, logger: Any, failed: bool) -> None:
        """Finish it, so that a sweep in one process makes several runs."""
        if logger._experiment is not None and hasattr(logger._experiment, "finish"):
            logger._experiment.finish(exit_code=int(failed))
            logger._experiment = None

    def upload(self, logger: Any, path: Path) -> None:
        """Log a checkpoint as the artifact ``requeue_checkpoint``, which W&B keeps for 30 days."""
        import wandb

        artifact = wandb.Artifact("requeue_checkpoint", type="model")
        artifact.ttl = timedelta(days=30)
        (artifact.add_dir if path.is_dir() else artifact.add_file)(str(path))
        logger.experiment.log_artifact(artifact)
