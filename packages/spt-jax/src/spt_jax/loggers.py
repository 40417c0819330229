"""Experiment trackers, each through its own client: W&B, Trackio, SwanLab and TensorBoard.

None of them needs torch or Lightning. Under the Manager each keeps its identity in the run's
directory (``{name}_resume.json``), so that a run which was preempted ten times is one run there.
"""

from __future__ import annotations

import importlib
import json
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
from loguru import logger as log
from spt_registry.run import atomic_write_json
from spt_registry.run.files import flatten, to_json

Identity = dict[str, str]


class Tracker:
    """What the trackers have in common; the first process alone writes.

    Args:
        **options: Arguments of the client's ``init``.
    """

    name: ClassVar[str]

    def __init__(self, **options: Any) -> None:
        self.options = options
        self._config: dict[str, Any] = {}
        self._run: Any = None

    def attach(self, run_dir: str | Path, run_id: str) -> None:
        """Write below a run's directory, as the run that it was before; the Manager calls this.

        Args:
            run_dir: The run's directory; the identity is read from it alone.
            run_id: The run's id.
        """
        path = Path(run_dir) / f"{self.name}_resume.json"
        known = read_identity(path)
        identity = known or self._identity(run_id)
        atomic_write_json(path, identity)
        self._anchor(Path(run_dir), identity, resumed=known is not None)

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        """Add hyper-parameters; they are sent when the run is opened."""
        self._config.update(to_json(flatten(params)))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add one row of numbers; the first one opens the run."""
        if jax.process_index() != 0:
            return
        if self._run is None:
            self._run = self._open()
        self._log({name: float(value) for name, value in metrics.items()}, step)

    def save(self) -> None:
        """The clients write by themselves."""

    def finalize(self, status: str) -> None:
        """End the run and write what waits; a later row goes on with it."""
        if self._run is not None:
            self._close(status == "failed")
            self._run = None

    def _client(self) -> Any:
        try:
            return importlib.import_module(self.name)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{type(self).__name__} needs {self.name}: pip install 'spt-jax[{self.name}]'"
            ) from error

    def _log(self, metrics: dict[str, float], step: int | None) -> None:
        self._run.log(metrics, step=step)

    def _identity(self, run_id: str) -> Identity:
        raise NotImplementedError

    def _anchor(self, run_dir: Path, identity: Identity, resumed: bool) -> None:
        raise NotImplementedError

    def _open(self) -> Any:
        raise NotImplementedError

    def _close(self, failed: bool) -> None:
        raise NotImplementedError


class WandbLogger(Tracker):
    """Log to Weights & Biases; ``mode="offline"`` writes files that ``wandb sync --append`` sends.

    Args:
        **options: Arguments of ``wandb.init``, such as ``project`` and ``mode``.
    """

    name = "wandb"

    def _identity(self, run_id: str) -> Identity:
        # W&B never gives an id again, and SLURM does
        return {"id": self.options.get("id") or secrets.token_hex(4)}

    def _anchor(self, run_dir: Path, identity: Identity, resumed: bool) -> None:
        self.options.update(id=identity["id"], resume="allow", dir=str(run_dir))

    def _open(self) -> Any:
        run = self._client().init(**self.options, config=self._config)
        self.options.update(id=run.id, resume="allow")
        return run

    def _close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class TrackioLogger(Tracker):
    """Log to Trackio, on this machine or on a server.

    After a kill the rows since the last checkpoint come a second time, with the same values.

    Args:
        **options: Arguments of ``trackio.init``, such as ``project`` and ``group``.
    """

    name = "trackio"

    def _identity(self, run_id: str) -> Identity:
        return {"name": self.options.get("name") or run_id}

    def _anchor(self, run_dir: Path, identity: Identity, resumed: bool) -> None:
        self.options.update(name=identity["name"], resume="allow" if resumed else "never")

    def _open(self) -> Any:
        run = self._client().init(**{"embed": False, **self.options}, config=self._config)
        self.options.update(name=run.name, resume="allow")
        return run

    def _close(self, failed: bool) -> None:
        self._run.finish()


class SwanLabLogger(Tracker):
    """Log to SwanLab; ``mode="offline"`` writes files that ``swanlab sync`` sends.

    Args:
        **options: Arguments of ``swanlab.init``, such as ``project`` and ``mode``.
    """

    name = "swanlab"

    def _identity(self, run_id: str) -> Identity:
        return {"id": self.options.get("id") or secrets.token_hex(10)}

    def _anchor(self, run_dir: Path, identity: Identity, resumed: bool) -> None:
        folder = run_dir / "swanlog"
        folder.mkdir(exist_ok=True)
        self.options.update(id=identity["id"], resume="allow", log_dir=str(folder))

    def _open(self) -> Any:
        run = self._client().init(**self.options, config=self._config)
        self.options.update(id=run.id, resume="allow")
        return run

    def _close(self, failed: bool) -> None:
        self._client().finish(state="crashed" if failed else "success")


class TensorBoardLogger(Tracker):
    """Write TensorBoard's event files; rows that come again after a kill replace the earlier ones.

    Args:
        log_dir: Folder of the files; ``tensorboard`` in the run's directory by default.
    """

    name = "tensorboard"

    def __init__(self, log_dir: str | Path | None = None) -> None:
        super().__init__()
        self.log_dir = None if log_dir is None else Path(log_dir)

    def attach(self, run_dir: str | Path, run_id: str) -> None:
        """Write below the run's directory, unless told otherwise; the folder is the identity."""
        self.log_dir = self.log_dir or Path(run_dir) / "tensorboard"

    def _open(self) -> Any:
        if self.log_dir is None:
            raise ValueError("TensorBoardLogger needs a `log_dir` where there is no Manager.")
        self._client()
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        return EventFileWriter(str(self.log_dir))

    def _log(self, metrics: dict[str, float], step: int | None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary

        if not getattr(self._run, "begun", False):  # drop what an earlier file says from here on
            start = SessionLog(status=SessionLog.START)
            self._run.add_event(Event(wall_time=time.time(), step=step, session_log=start))
            self._run.begun = True
        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=values))
        self._run.add_event(event)

    def _close(self, failed: bool) -> None:
        self._run.close()


def read_identity(path: Path) -> Identity | None:
    """An identity on disk; ``None``, with a warning, if it is not readable."""
    try:
        found: Identity = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        log.warning(f"{path} cannot be read ({error}): a new tracked run begins.")
        return None
    return found or None
