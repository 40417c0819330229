"""Lightning's training loops with exact stopping points between batches and between epochs.

A checkpoint is saved when everything that belongs to a batch has been done (its row is logged, its
validation has run), or everything that belongs to an epoch. On resume the loops stand at that
point again: the loaders are started from the random state they had, moved to the next batch, and
everything else is put back.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Literal

import lightning as pl
from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from loguru import logger
from torch import Tensor

from spt_manager.resume.generators import set_generator_states, starting_from
from spt_manager.resume.loaders import fast_forward, load_states, put_ahead
from spt_manager.resume.rng import rng_state, same_rng_state, set_rng_state
from spt_manager.resume.state import ExactState, Point

Reached = Callable[[pl.Trainer, Point], None]
Standing = Literal["batch", "validation", "validated", "epoch", "elsewhere"]


class ExactEpochLoop(_TrainingEpochLoop):
    """The batches of an epoch; tells when all that belongs to one has been done."""

    state: ExactState
    reached: Reached

    @property
    def fit_loop(self) -> ExactFitLoop:
        """The loop over epochs; not an attribute, or it would count as a part of this one."""
        loop = self.trainer.fit_loop
        assert isinstance(loop, ExactFitLoop)
        return loop

    def reset(self) -> None:
        """Begin or go on; a loader that cannot be resumed by itself was moved forward."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")
            super().reset()

    def on_run_start(self, data_fetcher: Any) -> None:
        """Start the loaders, or put everything back where it stood."""
        standing = self.fit_loop.standing
        if standing == "epoch":
            self.fit_loop.start_loaders_again(data_fetcher)
        elif standing is None and self.trainer.current_epoch > 0:
            self.state.loaders_start(data_fetcher.combined_loader)
        super().on_run_start(data_fetcher)
        if standing is not None:
            self._go_on(standing, data_fetcher)

    def _go_on(self, standing: Standing, data_fetcher: Any) -> None:
        if self.fit_loop.epoch_is_over:
            self.fit_loop.close_loaders()
        self.fit_loop.standing = None
        if standing in ("epoch", "elsewhere"):
            return
        self.state.put_back(self.trainer)
        # nothing is left out from here on, plateau schedules at the end of the epoch included
        _Loop.restarting.fset(self.fit_loop, False)  # type: ignore[attr-defined]
        if standing == "validation":
            self.on_advance_end(data_fetcher)
        elif standing == "validated":
            self._skip_next_val = True
            self.on_advance_end(data_fetcher)

    def on_advance_end(self, data_fetcher: Any) -> None:
        """Validate if it is time, then say that the batch is done."""
        if not self._skip_next_val and self._should_check_val_fx(data_fetcher):
            self.state.before_validation(self.trainer)
        super().on_advance_end(data_fetcher)
        self.state.after_validation()
        if not self.done:  # after the last batch the epoch's end comes first
            self.reached(self.trainer, "batch")

    def _broadcast_sigterm_tensor(self) -> None:
        """Nothing: the ranks agree on a stop at the end of a batch."""


class ExactFitLoop(_FitLoop):
    """The epochs of a run; tells when all that belongs to one has been done."""

    state: ExactState
    reached: Reached
    standing: Standing | None = None
    _began = False
    _resumed_rng: dict[str, Any] | None = None
    _started_rng: dict[str, Any] | None = None
    _resumed_generators: Sequence[Tensor] = ()
    _starting: ExitStack

    def run(self) -> None:
        """Run; what was loaded holds for this run alone."""
        self._began = False
        try:
            super().run()
            if not self._began:  # the run was over: it shall stand where it had come to
                self.state.put_back(self.trainer)
        finally:
            self.standing = self._resumed_rng = self._started_rng = None

    def load_state_dict(self, state_dict: dict[str, Any], prefix: str = "") -> None:
        """Load the counters and stand at the point where they were saved."""
        states = state_dict[f"{prefix}state_dict"].get("combined_loader", [])
        super().load_state_dict(state_dict, prefix)
        own = self.state.loaded
        self._combined_loader_states_to_load = (own and own["loaders"]) or states
        self.standing = self._stand(self.state.loaded_point)

    def _stand(self, point: Point | None) -> Standing:
        standing = point or standing_of(self)
        if standing == "epoch":
            _complete(self.epoch_progress)
        elif standing != "elsewhere":
            _complete(self.epoch_loop.batch_progress)
        if standing != "elsewhere":
            in_epoch = standing != "epoch"
            _Loop.restarting.fset(self, in_epoch)  # type: ignore[attr-defined]
        return standing

    def setup_data(self) -> None:
        """Make the loaders; on resume start them from their random state and move them on."""
        before, rng = self._data_fetcher, rng_state()
        if self.standing not in (None, "elsewhere") and self.state.loaded is not None:
            rng = self.state.loaded["data_rng"]
            set_rng_state(rng)
        with ExitStack() as self._starting:
            super().setup_data()
        if self._data_fetcher is before:
            return
        self.state.data_rng = rng
        if self.standing in (None, "elsewhere"):
            return
        if self.standing == "epoch":
            self._started_rng = rng_state()
        elif self.state.loaded is not None and not self.epoch_is_over:
            fast_forward(self._data_fetcher, self.epoch_loop.batch_progress.current.completed)
            put_ahead(self._data_fetcher, self.state.loaded["ahead"])

    def _load_combined_loader_states(self) -> None:
        """Load them, and set the random state from which Lightning starts the loaders next."""
        assert self._combined_loader is not None
        states, between = self._combined_loader_states_to_load, self.standing == "epoch"
        if not self.epoch_is_over:
            load_states(self._combined_loader, states, between=between)
        loaded = self.state.loaded
        if self.standing is None or loaded is None:
            self.state.loaders_start(self._combined_loader)
            return
        epoch: Any = self.epoch_progress.current
        for loader in self._combined_loader.flattened:
            _set_sampler_epoch(loader, epoch.processed)
        self._resumed_rng = loaded["rng" if between else "epoch_rng"]
        self._resumed_generators = loaded["generators" if between else "epoch_generators"]
        start = starting_from(self._combined_loader, self._resumed_generators)
        self._starting.enter_context(start)
        set_rng_state(self._resumed_rng)

    @property
    def epoch_is_over(self) -> bool:
        """Whether the epoch that goes on has no batch left, only its validation and its end."""
        in_its_end = self.standing in ("validation", "validated")
        return in_its_end and bool(self.epoch_loop.batch_progress.is_last_batch)

    def close_loaders(self) -> None:
        """Put the loaders where they stood after the last batch, ready to begin the next epoch."""
        assert self._combined_loader is not None
        load_states(self._combined_loader, self._combined_loader_states_to_load, between=True)
        if self.state.loaded is not None:
            set_generator_states(self._combined_loader, self.state.loaded["generators"])

    def on_run_start(self) -> None:
        """Call the hooks; a run that resumes between epochs has its random state again after them."""
        self._began = True
        super().on_run_start()
        if self.standing == "epoch":
            self.state.put_back(self.trainer)

    def start_loaders_again(self, data_fetcher: Any) -> None:
        """Start the resumed epoch's loaders where the run itself does: after the epoch's hooks."""
        now, started, before = rng_state(), self._started_rng, self._resumed_rng
        self.state.epoch_rng, self.state.epoch_generators = now, list(self._resumed_generators)
        if started is None or before is None:
            return
        if same_rng_state(before, now):  # the hooks drew nothing, so they are as they would be
            set_rng_state(started)
            return
        assert self._combined_loader is not None
        load_states(self._combined_loader, self._combined_loader_states_to_load, between=True)
        set_rng_state(now)
        with starting_from(self._combined_loader, self._resumed_generators):
            iter(data_fetcher)

    def on_advance_end(self) -> None:
        """End the epoch, then say that it is done."""
        super().on_advance_end()
        self.reached(self.trainer, "epoch")


def _complete(progress: Any) -> None:
    """Count what was processed as done: nothing of it is left."""
    for tracker in (progress.total, progress.current):
        tracker.completed = tracker.processed


def standing_of(loop: _FitLoop) -> Standing:
    """Where a checkpoint that was saved in a hook stands, by its counters."""
    epoch: Any = loop.epoch_progress.total
    batch: Any = loop.epoch_loop.batch_progress.total
    if epoch.ready == epoch.started == epoch.processed:
        return "epoch"
    in_epoch = epoch.ready == epoch.started == epoch.processed + 1
    if in_epoch and batch.ready == batch.started == batch.processed:
        if batch.completed == batch.processed - 1:
            return "validation"
        if loop.epoch_loop.batch_progress.current.completed > 0:
            return "validated"
    return "elsewhere"


def install_exact_loops(trainer: pl.Trainer, state: ExactState, reached: Reached) -> None:
    """Give a Trainer these loops in the place of Lightning's; loops of the user's own stay.

    Args:
        trainer: Whose loops are replaced.
        state: What is saved and put back.
        reached: Called at each stopping point.
    """
    old = trainer.fit_loop
    if type(old) is not _FitLoop or type(old.epoch_loop) is not _TrainingEpochLoop:
        logger.warning(
            f"The Trainer has loops of its own ({type(old).__name__}): a signal does not stop it, and a "
            "run goes on from Lightning's checkpoints only."
        )
        return
    epoch_loop = ExactEpochLoop(trainer)
    epoch_loop.__dict__.update(vars(old.epoch_loop))
    loop = ExactFitLoop(trainer)
    loop.__dict__.update(vars(old))
    loop.epoch_loop = epoch_loop
    for part in (loop, epoch_loop):
        part.state, part.reached = state, reached
    trainer.fit_loop = loop
