"""The ``optim`` argument of a module: from its grammar to what Lightning takes."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, Literal

import lightning as pl
from spt_optim import create_optimizer, create_scheduler
from torch.optim.lr_scheduler import ReduceLROnPlateau

KEYS = ("optimizer", "scheduler", "interval", "frequency", "monitor")


def normalise_optim(optim: Any) -> dict[str, Any] | None:
    """The grammar in one form.

    Args:
        optim: ``None``, ``False`` or empty: no optimizer. A name, a class or a partial: that
            optimizer with a cosine schedule. A mapping with ``optimizer`` and optionally
            ``scheduler`` (``None`` for none), ``interval`` (``"step"`` or ``"epoch"``), ``frequency``
            and ``monitor``.

    Raises:
        TypeError: If it is of another kind.
        ValueError: If a key or the interval is unknown.
    """
    if optim is None or optim is False or (isinstance(optim, Mapping) and not optim):
        return None
    if isinstance(optim, (str, functools.partial, type)):
        optim = {"optimizer": optim}
    if not isinstance(optim, Mapping):
        raise TypeError(
            "`optim` must be a name, a partial, a class, a mapping with `optimizer`, or None, got "
            f"{type(optim).__name__}."
        )
    unknown = sorted(set(optim) - set(KEYS))
    if unknown or "optimizer" not in optim:
        raise ValueError(
            f"`optim` must have the key 'optimizer' and may have {list(KEYS[1:])}, got "
            f"{sorted(optim)}."
        )
    if optim.get("interval", "step") not in ("step", "epoch"):
        raise ValueError(
            f"`interval` of `optim` must be 'step' or 'epoch', got {optim['interval']!r}."
        )
    return dict(optim)


def configure(module: pl.LightningModule, optim: dict[str, Any] | None) -> Any:
    """The optimizer and its schedule, as ``configure_optimizers`` returns them.

    Args:
        module: Whose trainable parameters are optimised.
        optim: As :func:`normalise_optim` returns it.

    Raises:
        ValueError: If no parameter is trainable.
    """
    if optim is None:
        return None
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError(
            f"{type(module).__name__} has no trainable parameter; give `optim=None` to train nothing."
        )
    optimizer = create_optimizer(parameters, optim["optimizer"], module=module)
    interval = optim.get("interval", "step")
    scheduler = create_scheduler(
        optimizer,
        optim.get("scheduler", "CosineAnnealingLR"),
        total_steps=horizon(module.trainer, interval),
    )
    if scheduler is None:
        return optimizer
    entry: dict[str, Any] = {
        "scheduler": scheduler,
        "interval": interval,
        "frequency": optim.get("frequency", 1),
    }
    if isinstance(scheduler, ReduceLROnPlateau):
        entry.update(monitor=optim.get("monitor", "val_loss"), interval="epoch")
    return {"optimizer": optimizer, "lr_scheduler": entry}


def horizon(trainer: pl.Trainer, interval: Literal["step", "epoch"]) -> int | None:
    """Length of the run in the scheduler's own steps; ``None`` if it has no end."""
    steps = trainer.estimated_stepping_batches
    if not math.isfinite(steps):
        return None
    if interval == "step":
        return max(int(steps), 1)
    if trainer.max_epochs not in (None, -1):
        return max(int(trainer.max_epochs or 1), 1)
    batches = trainer.num_training_batches / trainer.accumulate_grad_batches
    return max(math.ceil(steps / math.ceil(batches)), 1)
