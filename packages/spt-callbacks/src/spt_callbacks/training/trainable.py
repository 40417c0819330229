"""The base of callbacks that train a network of their own beside a run."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Literal

import lightning as pl
import torch
from torch import Tensor, nn

from spt_callbacks.evaluation._head import Head, WithHead


class TrainableCallback(WithHead):
    """Own a network, its optimizer, scheduler and clipping; nothing is registered on the module.

    A subclass makes the network in :meth:`configure_model` and trains it in a hook of its choice:
    compute a loss under :meth:`isolated`, hand it to :meth:`descend`. Network, optimizer and
    counters are in the state of the callback.

    Args:
        module: Accepted so that ``MyCallback(module, name=...)`` works; not used.
        name: Name in the logs and in checkpoints.
        optimizer: As for ``spt_optim.create_optimizer``; LARS by default.
        scheduler: As for ``spt_optim.create_scheduler``; a mapping may hold ``interval``,
            ``"step"`` (default) or ``"epoch"``, and ``frequency``.
        accumulate_grad_batches: Losses per step of the optimizer.
        gradient_clip_val: Largest norm, or value, of the gradient.
        gradient_clip_algorithm: ``"norm"`` or ``"value"``.

    Raises:
        ValueError: If a setting is out of range.
    """

    def __init__(
        self,
        module: pl.LightningModule | None = None,
        name: str = "trainable",
        optimizer: Any = None,
        scheduler: Any = None,
        accumulate_grad_batches: int = 1,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: Literal["norm", "value"] = "norm",
    ) -> None:
        self.name = name
        self.head = Head(
            self.caller,
            self.configure_model,
            optimizer,
            scheduler,
            accumulate_grad_batches,
            gradient_clip_val,
            gradient_clip_algorithm,
        )

    def configure_model(self, pl_module: pl.LightningModule) -> nn.Module:
        """Make the network; called once, when the device is known."""
        raise NotImplementedError(f"{type(self).__name__} must implement `configure_model`.")

    def isolated(self, device: torch.device) -> AbstractContextManager[None]:
        """A context that leaves the run's random state and autocast alone."""
        context: AbstractContextManager[None] = self.head.isolated(device)
        return context

    def descend(self, loss: Tensor, *, flush: bool = False) -> None:
        """Back-propagate a scalar to the network alone; step when enough losses have come.

        Args:
            loss: Scalar.
            flush: Step with what there is, as at the last batch of an epoch.
        """
        self.head.descend(loss, flush=flush)
