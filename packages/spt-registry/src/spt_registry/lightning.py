"""The registry as a Lightning logger (extra ``lightning``)."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

try:
    from lightning.pytorch.loggers.logger import Logger
    from lightning.pytorch.utilities import rank_zero_only
except ModuleNotFoundError as error:
    if error.name != "lightning":
        raise
    raise ModuleNotFoundError(
        'RegistryLogger needs Lightning: pip install "spt-registry[lightning]"', name="lightning"
    ) from error

from spt_registry.run.identity import resolve_identity
from spt_registry.writer import RunWriter


class RegistryLogger(Logger):
    """Record a Lightning run as plain files; see :class:`spt_registry.RunWriter`.

    Args:
        run_dir: The run's directory. The Manager fills it in; without one the run gets a
            directory of its own under ``./runs``.
        run_id: Its id; the directory's name by default.
        tags: Labels to group runs by.
        notes: Free text.
        flush_logs_every_n_steps: Most rows that wait to be written.
    """

    def __init__(
        self,
        run_dir: str | Path | None = None,
        run_id: str | None = None,
        *,
        tags: Sequence[str] | None = None,
        notes: str | None = None,
        flush_logs_every_n_steps: int = 50,
    ) -> None:
        super().__init__()
        self.run_dir = None if run_dir is None else Path(run_dir)
        self.run_id = run_id
        self.tags = list(tags or ())
        self.notes = notes
        self.flush_every = flush_logs_every_n_steps
        self.config: Mapping[str, Any] | None = None
        self.error: str | None = None
        self.outcome: str | None = None
        self._writer: RunWriter | None = None

    def attach(self, run_dir: str | Path, run_id: str, tags: Sequence[str] = ()) -> None:
        """Fill in what the user left out.

        Args:
            run_dir: Used unless one was given.
            run_id: Used unless one was given.
            tags: Added to the given ones.
        """
        if self._writer is not None and self._writer.closed:
            self._writer = None  # the next row continues the run in a new attempt
            self.outcome = self.error = None
        self.run_dir = self.run_dir or Path(run_dir)
        self.run_id = self.run_id or run_id
        self.tags = list(dict.fromkeys([*self.tags, *tags]))

    @property
    def name(self) -> str:
        """Empty: the run's directory is the whole path."""
        return ""

    @property
    def version(self) -> str:
        """Empty: the run's directory is the whole path."""
        return ""

    @property
    def save_dir(self) -> str | None:
        """The run's directory."""
        return None if self.run_dir is None else str(self.run_dir)

    @property
    def log_dir(self) -> str | None:
        """The run's directory."""
        return self.save_dir

    @property
    def experiment(self) -> RunWriter:
        """The writer, made at first use; rank 0 only."""
        if self._writer is None:
            if self.run_dir is None:
                self.run_id = self.run_id or resolve_identity().run_id
                self.run_dir = Path(os.getcwd()) / "runs" / self.run_id
            self._writer = RunWriter(
                self.run_dir,
                self.run_id,
                tags=self.tags,
                notes=self.notes,
                config=self.config,
                flush_every_rows=self.flush_every,
            )
        return self._writer

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any] | Namespace, *args: Any) -> None:
        """Add hyper-parameters."""
        self.experiment.log_hyperparams(vars(params) if isinstance(params, Namespace) else params)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add one row of numbers."""
        self.experiment.log_metrics(metrics, step)

    @rank_zero_only
    def save(self) -> None:
        """Rows are written in time by the writer; Lightning calls this after every row."""

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Record where a checkpoint saver keeps its files."""
        monitored = getattr(checkpoint_callback, "monitor", None) is not None
        best = getattr(checkpoint_callback, "best_model_path", None) if monitored else None
        self.experiment.log_checkpoint(
            best=best or None, last=getattr(checkpoint_callback, "last_model_path", None) or None
        )

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run; the Manager's word (``outcome``, ``error``) wins over Lightning's."""
        if self._writer is not None:
            self._writer.finalize(self.outcome or status, error=self.error)
