"""Optimizers and schedulers, as ``configure_optimizers`` returns them."""

from __future__ import annotations

import math
from typing import Any

import lightning as pl
from spt_optim import create_optimizer, create_scheduler
from torch.optim.lr_scheduler import ReduceLROnPlateau

from spt_methods.optim.assign import assign, groups_of
from spt_methods.optim.grammar import Entry


def configure(
    module: pl.LightningModule, entries: dict[str, Entry], frozen: str | None = None
) -> Any:
    """The optimizers and their schedules.

    Args:
        module: Whose trainable parameters are optimised.
        entries: As :func:`normalise_optim` returns them.
        frozen: Expression for what no optimizer takes.

    Returns:
        A dict for one optimizer, a list of dicts for several, ``None`` for none.

    Raises:
        ValueError: If no parameter is trainable, or not every one has its optimizer.
    """
    if not entries:
        return None
    if not any(p.requires_grad for p in module.parameters()):
        raise ValueError(
            f"{type(module).__name__} has no trainable parameter; give `optim=None` to train nothing."
        )
    taken = assign(module, {name: entry.modules for name, entry in entries.items()}, frozen)
    built = [_built(module, entry, taken[name]) for name, entry in entries.items()]
    if len(built) == 1:
        return built[0]
    for part in built:  # Lightning leaves the rest of the record to the module
        if "lr_scheduler" in part:
            part["lr_scheduler"] = {"scheduler": part["lr_scheduler"]["scheduler"]}
    return built


def _built(module: pl.LightningModule, entry: Entry, parameters: dict[str, Any]) -> dict[str, Any]:
    optimizer = create_optimizer(
        groups_of(module, parameters, entry),
        entry.optimizer,
        module=module,
        exclude_bias_norm=entry.exclude_bias_norm,
    )
    total = horizon(module.trainer, entry.interval, frequency_of(entry, module.trainer))
    if total is not None:
        total = math.ceil(total / entry.scheduler_frequency)
    scheduler = create_scheduler(optimizer, entry.scheduler, total_steps=total, module=module)
    if scheduler is None:
        return {"optimizer": optimizer}
    config: dict[str, Any] = {
        "scheduler": scheduler,
        "interval": entry.interval,
        "frequency": entry.scheduler_frequency,
    }
    if isinstance(scheduler, ReduceLROnPlateau):
        config.update(monitor=entry.monitor, interval="epoch")
    return {"optimizer": optimizer, "lr_scheduler": config}


def frequency_of(entry: Entry, trainer: pl.Trainer) -> int:
    """Batches per step of an optimizer."""
    return entry.frequency or trainer.accumulate_grad_batches


def horizon(trainer: pl.Trainer, interval: str, frequency: int | None = None) -> int | None:
    """Length of the run in the scheduler's own steps; ``None`` if it has no end.

    Args:
        trainer: Of the run.
        interval: ``"step"`` (optimizer steps) or ``"epoch"``.
        frequency: Batches per step of the optimizer, if not the Trainer's accumulation.
    """
    steps = trainer.estimated_stepping_batches
    if not math.isfinite(steps):
        return None
    accumulated = trainer.accumulate_grad_batches
    if interval == "step" and frequency in (None, accumulated):
        return max(int(steps), 1)
    batches = trainer.num_training_batches
    if not math.isfinite(batches):  # a stream without a length, under `max_steps`
        if interval == "epoch":
            return trainer.max_epochs if (trainer.max_epochs or 0) > 0 else None
        return max(math.ceil(steps * accumulated / (frequency or 1)), 1)
    epochs = steps / math.ceil(batches / accumulated)
    if interval == "epoch":
        return max(math.ceil(epochs), 1)
    return max(math.ceil(epochs * math.ceil(batches / (frequency or 1))), 1)
