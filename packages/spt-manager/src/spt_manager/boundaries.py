"""What happens between batches: save if it is time, stop if somebody asked for it."""

from __future__ import annotations

import lightning as pl

from spt_manager.checkpointing.last import LastCheckpoint
from spt_manager.preemption import Stopped, StopRequests
from spt_manager.resume.state import ExactState, Point

FAR = 2**62


class Boundaries:
    """Called by the loops at each point where a run can be continued exactly.

    Args:
        state: What a checkpoint holds beside Lightning's own.
        stops: Whether this process was asked to stop.
        saver: Keeps ``last.ckpt``; ``None`` without a run directory.
    """

    def __init__(
        self, state: ExactState, stops: StopRequests, saver: LastCheckpoint | None
    ) -> None:
        self.state = state
        self.stops = stops
        self.saver = saver

    def __call__(self, trainer: pl.Trainer, point: Point) -> None:
        """Agree with the other ranks; save if it is time or the end; stop if asked.

        Raises:
            Stopped: When a rank was asked to stop, on all ranks.
        """
        if point == "batch" and is_accumulating(trainer):
            return  # half of an optimizer step is in no checkpoint
        reason = self.stops.agree(self.state.ranks)
        saver = self.saver
        if saver is not None and (reason or saver.is_due(trainer, point)):
            saver.save(trainer, self.state, point)
        if reason:
            if saver is not None:
                saver.wait(trainer)
            raise Stopped(reason, rank=self.state.ranks.rank)


class EvaluationStops(pl.Callback):
    """Lets a run be stopped between the batches of an evaluation.

    Args:
        boundaries: Saves and stops.
    """

    def __init__(self, boundaries: Boundaries) -> None:
        self.boundaries = boundaries
        self._common = 0
        self._done = 0

    @property
    def state_key(self) -> str:
        """One of a kind."""
        return "spt_manager.EvaluationStops"

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find how many batches every rank has: only up to there can they agree."""
        if trainer.state.fn == "fit":
            batches = trainer.fit_loop.epoch_loop.val_loop.max_batches
        elif trainer.predicting:
            batches = trainer.predict_loop.max_batches
        else:
            batches = trainer._evaluation_loop.max_batches
        own = sum(min(int(n), FAR) if n != float("inf") else FAR for n in batches)
        self._common = self.boundaries.state.ranks.smallest(min(own, FAR))
        self._done = 0

    on_test_start = on_validation_start
    on_predict_start = on_validation_start

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop here if asked; inside ``fit`` a checkpoint is saved, from before the validation."""
        self._done += 1
        if self._done > self._common:
            return
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.boundaries(trainer, "validation")
            return
        ranks = self.boundaries.state.ranks
        reason = self.boundaries.stops.agree(ranks)
        if reason:
            raise Stopped(reason, rank=ranks.rank)

    on_test_batch_end = on_validation_batch_end
    on_predict_batch_end = on_validation_batch_end


def is_accumulating(trainer: pl.Trainer) -> bool:
    """Whether Lightning's gradients wait for more batches before the optimizer's step.

    A module that steps its optimizers itself has its gradients in the checkpoint.
    """
    return bool(
        trainer.lightning_module.automatic_optimization
        and trainer.fit_loop.epoch_loop._should_accumulate()
    )
