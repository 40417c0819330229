"""Outputs of the steps, written to files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from loguru import logger
from spt_registry.run import atomic_file

from spt_jax.batches import WEIGHT
from spt_jax.callbacks.base import Callback


class OnlineWriter(Callback):
    """Write outputs of an epoch to ``{path}/{phase}_epoch{n}.npz``.

    Rows that only fill a batch are left out. The first process writes. A training epoch that was
    continued in its middle is not written, for its first rows are gone. ``Trainer.validate`` and
    ``test`` write, too: as phases ``val`` and ``test``, if ``during`` has ``"val"``.

    Args:
        names: Keys of the outputs.
        path: The folder.
        during: Phases: ``"train"`` and ``"val"``.
        every_n_epochs: Epochs between files.
        name: Name in errors.

    Raises:
        ValueError: If a phase is unknown, there is no key, or ``every_n_epochs`` is below 1.
    """

    def __init__(
        self,
        names: Sequence[str],
        path: str | Path,
        during: Sequence[Literal["train", "val"]] = ("val",),
        every_n_epochs: int = 1,
        name: str = "writer",
    ) -> None:
        if isinstance(names, str) or not names:
            raise ValueError(f"`names` must be a sequence of keys, got {names!r}.")
        if every_n_epochs < 1 or not set(during) <= {"train", "val"}:
            raise ValueError(
                "`during` must hold 'train' or 'val' and `every_n_epochs` be >= 1, got "
                f"{during!r} and {every_n_epochs}."
            )
        self.names = list(names)
        self.path = Path(path)
        self.during = tuple(during)
        self.every_n_epochs = every_n_epochs
        self.name = name
        self._parts: list[dict[str, np.ndarray]] = []
        self._whole = True
        self._stage = "fit"

    def setup(self, trainer: Any, module: Any, stage: str) -> None:
        """Remember what the batches are for."""
        self._stage = stage

    def reads_outputs(self, phase: Literal["train", "val"]) -> bool:
        """Only the phases that are written."""
        return phase in self.during

    def _take(self, trainer: Any, outputs: Any, phase: str) -> None:
        skipped = self._stage == "fit" and trainer.current_epoch % self.every_n_epochs
        if phase not in self.during or skipped:
            return
        found = dict(zip(self.names, self.need(outputs, *self.names), strict=True))
        held = jax.device_get({**found, WEIGHT: outputs[WEIGHT]})
        real = held.pop(WEIGHT) > 0
        self._parts.append({key: np.asarray(x)[_rows(real, x)] for key, x in held.items()})

    def _write(self, trainer: Any, phase: str) -> None:
        parts, self._parts = self._parts, []
        if parts and not self._whole:
            logger.warning(
                f"OnlineWriter {self.name!r} leaves {phase} epoch {trainer.current_epoch} out: the run was "
                "continued in its middle, and the rows before are gone."
            )
            return
        if parts and jax.process_index() == 0:
            arrays: dict[str, Any] = {
                key: np.concatenate([part[key] for part in parts]) for key in self.names
            }
            self.path.mkdir(parents=True, exist_ok=True)
            with atomic_file(self.path / f"{phase}_epoch{trainer.current_epoch}.npz") as file:
                np.savez(file, **arrays)

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        """Begin anew; what is left over is of a run that was stopped."""
        self._parts, self._whole = [], trainer.epoch_batches == 0

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take a step's outputs."""
        self._take(trainer, outputs, "train")

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """Write the training's file."""
        self._write(trainer, "train")

    def on_validation_epoch_start(self, trainer: Any, module: Any) -> None:
        """Begin anew."""
        self._parts, self._whole = [], True

    def on_validation_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take a step's outputs."""
        self._take(trainer, outputs, "val")

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        """Write the validation's file."""
        self._write(trainer, "test" if self._stage == "test" else "val")


def _rows(real: np.ndarray, x: Any) -> Any:
    """Which rows of an output to keep, for one view or several."""
    x = np.atleast_1d(x)
    if len(x) % len(real):
        return slice(None)
    return np.tile(real, len(x) // len(real))
