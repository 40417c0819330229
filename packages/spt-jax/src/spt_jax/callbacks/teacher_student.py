"""Teachers' coefficients in the logs, and without a schedule if asked."""

from __future__ import annotations

from typing import Any

from spt_jax.callbacks.base import Callback
from spt_jax.teacher import teachers_of


class TeacherStudentCallback(Callback):
    """Check that there are teachers, and log their coefficient at the end of each epoch.

    The moving average itself is part of every compiled training step, with or without this callback.
    Logs ``teacher_student/ema_coefficient``.

    Args:
        update_schedule: Follow the wrappers' cosine; ``False`` keeps their first coefficient.

    Raises:
        ValueError: At the start, if the module has no :class:`TeacherStudentWrapper`.
    """

    name = "teacher_student"

    def __init__(self, update_schedule: bool = True) -> None:
        self.update_schedule = update_schedule

    def setup(self, trainer: Any, module: Any, stage: str) -> None:
        """Find the teachers."""
        self.wrappers = teachers_of(module)
        if not self.wrappers:
            raise ValueError(
                f"TeacherStudentCallback found no TeacherStudentWrapper in {type(module).__name__}."
            )
        if not self.update_schedule:
            for wrapper in self.wrappers:
                wrapper.final_ema_coefficient = wrapper.base_ema_coefficient

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """Log the coefficient of the last step."""
        total = trainer.engine.plan.total_steps
        m = self.wrappers[0].ema_coefficient(max(trainer.global_step - 1, 0), total)
        trainer.log("teacher_student/ema_coefficient", float(m))
