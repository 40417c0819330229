"""Move the teachers of a module after every optimizer step."""

from __future__ import annotations

from typing import Any

import lightning as pl
from loguru import logger
from torch import nn

from spt_callbacks.training.steps import StepCounter, total_steps


class TeacherStudentCallback(pl.Callback):
    """Call ``update_teacher()`` of every submodule that has it, once per optimizer step.

    Before the update, ``update_ema_coefficient(step, total_steps)`` is called where it exists:
    ``step`` counts optimizer steps from 0 and ``total_steps`` is the run's length, so a momentum
    schedule runs smoothly and goes on where it was after a resume. Accumulated micro-batches
    count as one step; a compiled module and its original count as one module.

    Args:
        update_frequency: Optimizer steps from one update to the next.
        update_after_backward: Update when the gradients are there and before the optimizer steps,
            so that the teacher follows the student's weights of this step, not of the next.
        verbose: Log ``teacher_student/{name}_coefficient`` of each teacher that has an
            ``ema_coefficient``.

    Raises:
        ValueError: If ``update_frequency`` is below 1; at the start of ``fit``, if a teacher has
            a schedule and the run has no end.
    """

    def __init__(
        self,
        update_frequency: int = 1,
        update_after_backward: bool = False,
        verbose: bool | None = None,
    ) -> None:
        if update_frequency < 1:
            raise ValueError(f"`update_frequency` must be >= 1, got {update_frequency}.")
        self.update_frequency = update_frequency
        self.update_after_backward = update_after_backward
        self.verbose = verbose
        self._counter = StepCounter()
        self._teachers: dict[str, nn.Module] = {}
        self._total = 0
        self._updated_batch = -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the teachers."""
        self._counter.begin(trainer)
        self._updated_batch = -1
        self._teachers = find_teachers(pl_module)
        if not self._teachers:
            logger.warning(
                "TeacherStudentCallback found no submodule with `update_teacher()` in "
                f"{type(pl_module).__name__} and does nothing."
            )
        if any(hasattr(t, "update_ema_coefficient") for t in self._teachers.values()):
            self._total = total_steps(trainer, "TeacherStudentCallback")

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any
    ) -> None:
        """Update before the step, once however many optimizers step."""
        batch = trainer.fit_loop.total_batch_idx
        if self.update_after_backward and batch != self._updated_batch:
            self._updated_batch = batch
            self._update(pl_module, self._counter.steps or 0)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Update after the step."""
        if self._counter.stepped(trainer) and not self.update_after_backward:
            self._update(pl_module, (self._counter.steps or 1) - 1)

    def _update(self, pl_module: pl.LightningModule, step: int) -> None:
        """Update the teachers for the step of this number, counted from 0."""
        if (step + 1) % self.update_frequency:
            return
        for name, module in self._teachers.items():
            if hasattr(module, "update_ema_coefficient"):
                module.update_ema_coefficient(min(step, self._total), self._total)  # type: ignore[operator]
            module.update_teacher()  # type: ignore[operator]
            if self.verbose and hasattr(module, "ema_coefficient"):
                pl_module.log(f"teacher_student/{name}_coefficient", float(module.ema_coefficient))  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        """The number of optimizer steps."""
        return self._counter.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's count."""
        self._counter.load_state_dict(state_dict)


def find_teachers(module: nn.Module) -> dict[str, nn.Module]:
    """The outermost submodules that have ``update_teacher()``, by name; each once.

    Example:
        >>> find_teachers(nn.Linear(2, 2))
        {}
    """
    found: dict[str, nn.Module] = {}
    _search(module, "", found, set())
    return found


def _search(module: nn.Module, name: str, found: dict[str, nn.Module], seen: set[int]) -> None:
    module = getattr(module, "_orig_mod", module)  # what torch.compile wrapped
    if id(module) in seen:
        return
    seen.add(id(module))
    if callable(getattr(module, "update_teacher", None)):
        found[name or type(module).__name__] = module
        return
    for child_name, child in module.named_children():
        _search(child, f"{name}.{child_name}" if name else child_name, found, seen)
