"""Epochs, where a run has them."""

from __future__ import annotations

import math
from typing import Any

import lightning as pl


def require_epochs(trainer: pl.Trainer, what: str) -> None:
    """Refuse a run in steps over a loader without a length: its first epoch may never end.

    Args:
        trainer: In training.
        what: What counts epochs, for the message.

    Raises:
        ValueError: If neither the length of an epoch nor a number of epochs is known.
    """
    if math.isinf(trainer.num_training_batches) and trainer.max_epochs in (None, -1):
        raise ValueError(
            f"{what} counts epochs, but the training loader has no length and the Trainer no "
            "`max_epochs`: an epoch may never end. Give the Trainer `limit_train_batches`, the "
            "number of batches of an epoch, or set that number of epochs to 0."
        )


def epoch_of(module: Any, what: str) -> int:
    """The current epoch of a module, checked by :func:`require_epochs` in training."""
    trainer = getattr(module, "_trainer", None)
    if trainer is not None and trainer.training:
        require_epochs(trainer, what)
    return int(module.current_epoch)
