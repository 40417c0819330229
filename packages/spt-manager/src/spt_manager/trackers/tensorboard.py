"""TensorBoard, by Lightning's ``TensorBoardLogger``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spt_manager.trackers.base import Identity, Tracker


class TensorBoardTracker(Tracker):
    """Write below the run's directory; the directory is the identity."""

    name = "tensorboard"
    logger_class = "TensorBoardLogger"
    same = ()

    def identity(self, logger: Any, run_id: str) -> Identity:
        """The folder in the run's directory."""
        return {"folder": "tensorboard"}

    def anchor(self, logger: Any, run_dir: Path, identity: Identity, resumed: bool) -> None:
        """Write there, all attempts in one folder."""
        logger._root_dir = str(run_dir)
        logger._name, logger._version, logger._sub_dir = identity["folder"], "", None

    def replays_from(self, logger: Any, step: int) -> None:
        """Let TensorBoard hide what was logged from this step on before, by a new file that says so."""
        self.end(logger, failed=False)  # hyper-parameters may have been logged already
        logger._kwargs["purge_step"] = step

    def end(self, logger: Any, failed: bool) -> None:
        """Close the file."""
        if logger._experiment is not None:
            logger._experiment.close()
            logger._experiment = None
