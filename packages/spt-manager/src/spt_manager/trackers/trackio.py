"""Trackio: a Lightning logger for it, and its identity."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from spt_registry.run.files import flatten, to_json

from spt_manager.trackers.base import Identity, Tracker, present


class TrackioLogger(Logger):
    """Log numbers to Trackio, on this machine or on a server.

    Args:
        project: Name of the project.
        name: Of the run; the Manager fills in the run's id.
        group: Runs to show together.
        server_url: A server of your own; excludes ``space_id``.
        space_id: A Hugging Face Space.
        resume: ``"never"``, ``"allow"`` or ``"must"``; the Manager sets it when a run goes on.
        **kwargs: Further arguments of ``trackio.init``.

    Raises:
        ValueError: If both ``server_url`` and ``space_id`` are given.
    """

    def __init__(
        self,
        project: str,
        name: str | None = None,
        *,
        group: str | None = None,
        server_url: str | None = None,
        space_id: str | None = None,
        resume: str = "never",
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if server_url is not None and space_id is not None:
            raise ValueError("Give either `server_url` or `space_id` to TrackioLogger, not both.")
        self.options: dict[str, Any] = {
            "project": project,
            "name": name,
            "group": group,
            "server_url": server_url,
            "space_id": space_id,
            "resume": resume,
            **kwargs,
        }
        self._config: dict[str, Any] = {}
        self._run: Any = None

    @property
    def name(self) -> str:
        """The project."""
        return str(self.options["project"])

    @property
    def version(self) -> str | None:
        """The run's name."""
        name: str | None = self.options["name"]
        return name

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The Trackio run, begun at the first use.

        Raises:
            ModuleNotFoundError: If Trackio is not installed.
        """
        if self._run is None:
            try:
                import trackio
            except ModuleNotFoundError as error:
                raise ModuleNotFoundError(
                    "TrackioLogger needs trackio: pip install 'spt-manager[trackio]'"
                ) from error
            given = {key: value for key, value in self.options.items() if value is not None}
            self._run = trackio.init(**given, config=self._config or None, embed=False)
        return self._run

    def resume_info(self) -> Identity:
        """What names the run at Trackio."""
        return present({n: self.options[n] for n in ("project", "name", "group", "server_url")})

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any] | Namespace, *args: Any) -> None:
        """Add hyper-parameters; Trackio takes those that come before the first row."""
        given = vars(params) if isinstance(params, Namespace) else params
        self._config.update(to_json(flatten(given)))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add one row."""
        self.experiment.log({key: float(value) for key, value in metrics.items()}, step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run and write what waits; the next row goes on with it."""
        if self._run is not None:
            self._run.finish()
            self._run = None
            self.options["resume"] = "allow"


class TrackioTracker(Tracker):
    """Keep the project and the run's name."""

    name = "trackio"
    logger_class = "TrackioLogger"

    def identity(self, logger: Any, run_id: str) -> Identity:
        """The user's name, or the run's id."""
        logger.options["name"] = logger.options["name"] or run_id
        found: Identity = logger.resume_info()
        return found

    def anchor(self, logger: Any, run_dir: Path, identity: Identity, resumed: bool) -> None:
        """Go on with the run of this name."""
        logger.options["name"] = identity["name"]
        if resumed:
            logger.options["resume"] = "allow"

    def end(self, logger: Any, failed: bool) -> None:
        """Nothing is left to do after ``finalize``."""
