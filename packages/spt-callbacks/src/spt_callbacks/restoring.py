"""Loading a checkpoint that was made with other callbacks."""

from __future__ import annotations

import weakref
from typing import Any

import lightning as pl
from loguru import logger

_told: weakref.WeakSet[pl.Trainer] = weakref.WeakSet()


def tell_what_is_missing(trainer: pl.Trainer, checkpoint: dict[str, Any]) -> None:
    """One message, however many callbacks a checkpoint lacks: they start from scratch.

    Args:
        trainer: Whose callbacks are asked; those with a true ``is_stateful`` count.
        checkpoint: What Lightning loaded.
    """
    if trainer in _told:
        return
    saved = checkpoint.get("callbacks", {})
    missing = [
        callback.state_key
        for callback in trainer.callbacks  # type: ignore[attr-defined]
        if getattr(callback, "is_stateful", False) and callback.state_key not in saved
    ]
    if missing:
        _told.add(trainer)
        logger.info(f"The checkpoint holds no state of {', '.join(missing)}: these start anew.")
