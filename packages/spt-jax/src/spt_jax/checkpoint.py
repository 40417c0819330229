"""Checkpoints with Orbax: written in the background, complete or absent, the newest ones kept.

A run's state goes in as a flat mapping from each array's path to the array, with a checksum of each, so
a file that has rotted is noticed, and one of another module is named.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import nnx
from loguru import logger

from spt_jax.callbacks.base import Callback
from spt_jax.flat_state import check_structure, checksums, flat, unflat
from spt_jax.placement import all_processes

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

STEP = "_step"
OF_MODULE = re.compile(r"(?:module/)?(?:params|rest)/(.+)")
"""A module's array in a run's checkpoint."""


class CorruptCheckpointError(ValueError):
    """A checkpoint's content is not what was written."""


class Checkpoints:
    """The checkpoints of a run, by step.

    Args:
        folder: Where they are.
        keep: How many of the newest are kept.

    Raises:
        ValueError: If ``keep`` is below 1.
    """

    def __init__(self, folder: str | Path, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"`keep` must be >= 1, got {keep}.")
        self.folder = Path(folder).absolute()
        self.keep = keep
        self._opened: ocp.CheckpointManager | None = None

    @property
    def manager(self) -> ocp.CheckpointManager:
        """Orbax's manager, opened when it is first needed."""
        if self._opened is None:
            import orbax.checkpoint as ocp

            self.folder.mkdir(parents=True, exist_ok=True)
            options = ocp.CheckpointManagerOptions(
                max_to_keep=self.keep, enable_async_checkpointing=True
            )
            self._opened = ocp.CheckpointManager(
                self.folder, options=options, item_names=("state", "record")
            )
        return self._opened

    def save(self, step: int, state: Any, record: dict[str, Any]) -> Path | None:
        """Copy a state to the host and write it in the background.

        Args:
            step: Its step; nothing happens if that step is there.
            state: A tree of arrays.
            record: Values that JSON can hold.

        Returns:
            Where it will be; ``None`` if it was there.

        Raises:
            ValueError: If the folder holds later steps, beside which this one could not be kept.
        """
        import orbax.checkpoint as ocp

        if step in self.manager.all_steps():
            return None
        arrays = flat(state)
        record = {**record, "checksums": checksums(arrays)}
        written = self.manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(arrays), record=ocp.args.JsonSave(record)
            ),
        )
        if not written:
            raise ValueError(
                f"Step {step} cannot be saved in {self.folder}, which holds {self.steps()}; choose "
                "another folder."
            )
        return self.folder / str(step)

    def replace(self, step: int, state: Any, record: dict[str, Any]) -> Path | None:
        """As :meth:`save`; under the next free number if the step's own is taken or passed.

        The earlier one stays until the new one is written.
        """
        newest = self.manager.latest_step()
        return self.save(step if newest is None else max(step, newest + 1), state, record)

    def begin(self, step: int) -> None:
        """Set the checkpoints aside that are later than a run's first step: they are another run's."""
        for other in [number for number in self.steps() if number > step]:
            aside = self._set_aside(other, "other")
            logger.warning(
                f"{self.folder / str(other)} is of another run, as this one begins at step {step}. It is "
                f"set aside as {aside}; to go on from it, give its folder as `resume_from`."
            )

    def steps(self) -> list[int]:
        """The steps that are complete, ascending."""
        return sorted(self.manager.all_steps()) if self.folder.is_dir() else []

    def restore(self, state: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest good checkpoint, in the structure of a state; ``None`` without one.

        A corrupt one is set aside with a message, and the one before is used.

        Raises:
            CorruptCheckpointError: If all are corrupt.
            OSError: If one cannot be read for a reason that is not in the file.
            ValueError: If a checkpoint holds another structure.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self._read(step, state)
            except CorruptCheckpointError as error:
                aside = self._set_aside(step, "corrupt")
                logger.error(
                    f"The checkpoint {self.folder / str(step)} is corrupt ({error}). It is set aside as "
                    f"{aside}; the one before is used."
                )
        if steps:
            raise CorruptCheckpointError(
                f"None of the checkpoints {steps} in {self.folder} could be read. They are set aside in "
                f"{self.folder}.corrupt; start again to begin anew."
            )
        return None

    def _read(self, step: int, state: Any) -> tuple[Any, dict[str, Any]]:
        import orbax.checkpoint as ocp

        expected = flat(state)
        record = self._guarded(step, record=ocp.args.JsonRestore())["record"]
        check_structure(record["checksums"], expected, self.folder / str(step))
        model = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in expected.items()}
        stored = self._guarded(step, state=ocp.args.StandardRestore(model))["state"]
        arrays = {name: np.asarray(value) for name, value in stored.items()}
        if checksums(arrays) != record.pop("checksums"):
            raise CorruptCheckpointError("its checksums differ")
        return unflat(arrays, state), record

    def _guarded(self, step: int, **items: Any) -> Any:
        """Restore items; whatever Orbax says about a damaged one is one kind of error here."""
        import orbax.checkpoint as ocp

        try:
            return self.manager.restore(step, args=ocp.args.Composite(**items))
        except (ValueError, KeyError, FileNotFoundError, TypeError, RuntimeError) as error:
            raise CorruptCheckpointError(str(error).splitlines()[0][:300]) from error

    def _set_aside(self, step: int, reason: str) -> Path:
        """Move a checkpoint into a folder beside this one; the first process does."""
        folder = self.folder.with_name(f"{self.folder.name}.{reason}")
        aside = folder / f"{step}-{time.time_ns()}"
        if jax.process_index() == 0:
            folder.mkdir(exist_ok=True)
            os.replace(self.folder / str(step), aside)
        all_processes(f"set aside {step}")
        self.manager.reload()
        return aside

    def wait(self) -> None:
        """Wait until everything is written."""
        if self._opened is not None:
            self._opened.wait_until_finished()

    def close(self) -> None:
        """Wait, and let go of Orbax's threads."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None


class Checkpoint(Callback):
    """Save the run after epochs, and at its end, without a Manager.

    ``Trainer.fit(..., resume_from=path)`` goes on from the newest. Without it, checkpoints that another
    run has left in the folder are set aside in ``{path}.other``.

    Args:
        path: Folder of the checkpoints.
        every_n_epochs: Epochs between saves; ``None`` saves at the end alone.
        save_optimizer: Whether to keep optimizer and callbacks, too; without them the run cannot be
            continued, and ``checkpoint.load`` reads the weights.
        keep: How many of the newest are kept.
    """

    name = "checkpoint"

    def __init__(
        self,
        path: str | Path,
        every_n_epochs: int | None = None,
        save_optimizer: bool = True,
        keep: int = 2,
    ) -> None:
        if every_n_epochs is not None and every_n_epochs < 1:
            raise ValueError(f"`every_n_epochs` must be >= 1 or None, got {every_n_epochs}.")
        self.checkpoints = Checkpoints(path, keep)
        self.every_n_epochs = every_n_epochs
        self.save_optimizer = save_optimizer

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        """Set the checkpoints of another run aside."""
        self.checkpoints.begin(trainer.global_step)

    def on_epoch_end(self, trainer: Any, module: Any) -> None:
        """Save, if it is time."""
        if self.every_n_epochs and trainer.current_epoch % self.every_n_epochs == 0:
            self._save(trainer)

    def on_fit_end(self, trainer: Any, module: Any) -> None:
        """Save, and wait for the file."""
        self._save(trainer)
        self.checkpoints.close()

    def _save(self, trainer: Any) -> None:
        state, record = trainer.snapshot()
        if not self.save_optimizer:
            state = {"module": {"params": state["params"], "rest": state["rest"]}}
        path = self.checkpoints.save(trainer.global_step, state, record)
        if path is not None:
            trainer.log_checkpoint_path(path)


def save(path: str | Path, *, step: int = 0, **objects: Any) -> None:
    """Write NNX nodes or trees of arrays into a folder; complete or absent.

    Args:
        path: The folder; it is replaced.
        step: A number to keep with them.
        **objects: What to save, by name, such as ``module=`` and ``optimizer=``.
    """
    import orbax.checkpoint as ocp

    arrays = flat({name: _state_of(value) for name, value in objects.items()})
    with ocp.StandardCheckpointer() as writer:
        writer.save(Path(path).absolute(), {**arrays, STEP: np.asarray(step)}, force=True)


def load(path: str | Path, *, strict: bool = True, **objects: Any) -> int:
    """Read into NNX nodes, which are updated in place.

    Args:
        path: A folder of :func:`save`; or the checkpoints of a run (its newest is read), or one of
            them, which hold its ``module=``.
        strict: Refuse a file that lacks an array of the objects or holds another one; otherwise
            what fits is taken.
        **objects: NNX nodes by the names that they were saved under.

    Returns:
        The step that was saved.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If the structures differ and ``strict`` is set.
    """
    states = {name: _state_of(value) for name, value in objects.items()}
    step, stored = _stored(Path(path).absolute())
    expected = flat(states)
    if strict:
        check_structure(stored, expected, Path(path))
    fitting = {
        name: stored[name]
        if name in stored and np.shape(stored[name]) == np.shape(value)
        else value
        for name, value in expected.items()
    }
    found = unflat(fitting, states)
    for name, value in objects.items():
        nnx.update(value, found[name])
    return step


def resume(path: str | Path, state: Any) -> tuple[Any, dict[str, Any]]:
    """The newest good checkpoint of a folder, in the structure of a state, and its record.

    Raises:
        FileNotFoundError: If there is none.
    """
    checkpoints = Checkpoints(path)
    try:
        found = checkpoints.restore(state)
    finally:
        checkpoints.close()
    if found is None:
        raise FileNotFoundError(
            f"`resume_from` must be a folder of checkpoints, and {checkpoints.folder} holds none."
        )
    return found


def _stored(path: Path) -> tuple[int, dict[str, Any]]:
    """Step and arrays of a folder of :func:`save`, or of the module in a run's checkpoint."""
    import orbax.checkpoint as ocp

    if not path.is_dir():
        raise FileNotFoundError(f"There is no checkpoint at {path}.")
    of_run = path if (path / "state").is_dir() else _newest(path)
    with ocp.StandardCheckpointer() as reader:
        stored = reader.restore(path if of_run is None else of_run / "state")
    if of_run is None:
        return int(stored.pop(STEP)), stored
    record = json.loads((of_run / "record" / "metadata").read_text())
    found = ((OF_MODULE.fullmatch(name), value) for name, value in stored.items())
    return record["global_step"], {f"module/{name[1]}": value for name, value in found if name}


def _newest(folder: Path) -> Path | None:
    """The newest of a run's checkpoints; ``None`` if the folder holds none."""
    steps = [path for path in folder.iterdir() if path.name.isdigit() and (path / "state").is_dir()]
    return max(steps, key=lambda path: int(path.name), default=None)


def _state_of(value: Any) -> Any:
    return nnx.state(value) if isinstance(value, (nnx.Module, nnx.Optimizer)) else value
