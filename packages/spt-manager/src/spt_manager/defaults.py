"""The callbacks that a run gets beside the user's own: by the settings, and never twice."""

from __future__ import annotations

import sys
from typing import Any

import lightning as pl
from lightning.pytorch.callbacks import (
    Checkpoint,
    ModelSummary,
    ProgressBar,
    RichModelSummary,
    RichProgressBar,
    TQDMProgressBar,
)
from spt_callbacks import (
    CleanUpCallback,
    TeacherStudentCallback,
    default_callbacks,
)
from spt_callbacks import ModuleSummary as OurSummary

from spt_manager.config import KEPT, Settings
from spt_manager.progress import LineProgress


def callbacks_of(trainer: pl.Trainer) -> list[Any]:
    """The trainer's own list of callbacks, in the order in which they are called."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return callbacks


def add_default_callbacks(trainer: pl.Trainer, settings: Settings) -> None:
    """Add what the settings ask for and the trainer has none of; savers stay last.

    Args:
        trainer: Made by the user or from a configuration.
        settings: Which ones.
    """
    wanted = dict(settings.default_callbacks)
    if wanted.pop("progress_bar", True):
        replace_progress_bar(trainer, settings.progress_bar)
    if wanted.pop("module_summary", True):
        replace_summary(trainer)
    new = default_callbacks({**wanted, "module_summary": False})
    if settings.cleanup != KEPT:
        kept: dict[str, Any] = {f"keep_{name}": on for name, on in settings.cleanup.items()}
        new.append(CleanUpCallback(**kept))
    have = tuple(type(entry) for entry in callbacks_of(trainer))
    insert_before_savers(trainer, [entry for entry in new if not isinstance(entry, have)])


def add_teacher_update(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Keep the teachers of a module up to date, unless the trainer does already."""
    teachers = any(hasattr(m, "update_teacher") and hasattr(m, "teacher") for m in module.modules())
    if teachers and not any(isinstance(c, TeacherStudentCallback) for c in callbacks_of(trainer)):
        insert_before_savers(trainer, [TeacherStudentCallback()])


def insert_before_savers(trainer: pl.Trainer, new: list[pl.Callback]) -> None:
    """Add callbacks where a saver sees what they have done."""
    callbacks = callbacks_of(trainer)
    first = next((i for i, c in enumerate(callbacks) if isinstance(c, Checkpoint)), len(callbacks))
    callbacks[first:first] = new


def replace_progress_bar(trainer: pl.Trainer, kind: str) -> None:
    """Put the chosen bar in the place of Lightning's; one that was switched off stays off."""
    lightnings = (TQDMProgressBar, RichProgressBar)
    callbacks = callbacks_of(trainer)
    found = [i for i, entry in enumerate(callbacks) if type(entry) in lightnings]
    if not found:
        return
    if kind == "auto":
        kind = "rich" if sys.stdout.isatty() else "simple"
    bars: dict[str, list[ProgressBar]] = {"none": []}
    if kind != "none":
        bars[kind] = [LineProgress() if kind == "simple" else RichProgressBar()]
    callbacks[found[0] : found[0] + 1] = bars[kind]


def replace_summary(trainer: pl.Trainer) -> None:
    """Put our summary in the place of Lightning's; one that was switched off stays off."""
    callbacks = callbacks_of(trainer)
    given = any(isinstance(entry, OurSummary) for entry in callbacks)
    found = [
        i for i, entry in enumerate(callbacks) if type(entry) in (ModelSummary, RichModelSummary)
    ]
    if found:
        callbacks[found[0] : found[0] + 1] = [] if given else [OurSummary()]
