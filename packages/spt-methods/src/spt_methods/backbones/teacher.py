"""A student and the moving average of its weights.

He et al., "Momentum Contrast", CVPR 2020, eq. 2, https://arxiv.org/abs/1911.05722; the cosine of
Grill et al., "Bootstrap Your Own Latent", NeurIPS 2020, section 3.2, https://arxiv.org/abs/2006.07733.
"""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
from spt_callbacks import ema_update
from spt_callbacks.training.ema import Buffers
from spt_optim import cosine_value, linear_value
from torch import Tensor, nn


class TeacherStudentWrapper(nn.Module):
    """A network with its teacher, ``t <- m t + (1 - m) s`` after each optimizer step.

    :class:`spt_callbacks.TeacherStudentCallback` calls :meth:`update_ema_coefficient` and
    :meth:`update_teacher`; the method classes bring it along. The teacher is always in evaluation
    mode unless ``teacher_training_mode`` says that its BatchNorm sees batch statistics, and never
    has stochastic depth or dropout.

    Args:
        student: The network that is trained.
        warm_init: Start the teacher as a copy of the student; else from a fresh initialisation
            (of every layer that has ``reset_parameters``).
        base_ema_coefficient: m at the first step, in [0, 1].
        final_ema_coefficient: m at the end of the run, in [0, 1]. With both at 0 the teacher *is*
            the student.
        buffers: ``"copy"`` hands the student's BatchNorm statistics to the teacher, ``"keep"``
            leaves the teacher its own.
        teacher_training_mode: Keep the teacher's BatchNorm layers in training mode, as MoCo, BYOL
            and DINO with ResNets do; use ``buffers="keep"`` with it.
        schedule: From the base to the final value on half a ``"cosine"``, or ``"linear"`` as I-JEPA
            and data2vec.

    Raises:
        ValueError: If a coefficient is out of range, or ``schedule`` is unknown.

    Example:
        >>> pair = TeacherStudentWrapper(nn.Linear(2, 2), base_ema_coefficient=0.5)
        >>> pair.update_ema_coefficient(0, 10)
        >>> pair.ema_coefficient.item()
        0.5
    """

    base_ema_coefficient: Tensor
    final_ema_coefficient: Tensor
    ema_coefficient: Tensor

    def __init__(
        self,
        student: nn.Module,
        warm_init: bool = True,
        base_ema_coefficient: float = 0.996,
        final_ema_coefficient: float = 1.0,
        *,
        buffers: Buffers = "copy",
        teacher_training_mode: bool = False,
        schedule: Literal["cosine", "linear"] = "cosine",
    ) -> None:
        super().__init__()
        if schedule not in ("cosine", "linear"):
            raise ValueError(f"`schedule` must be 'cosine' or 'linear', got {schedule!r}.")
        for name, value in (
            ("base_ema_coefficient", base_ema_coefficient),
            ("final_ema_coefficient", final_ema_coefficient),
        ):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"`{name}` must be in [0, 1], got {value}.")
        self.student = student
        self.shared = base_ema_coefficient == final_ema_coefficient == 0.0
        self.teacher = student if self.shared else _teacher_of(student, warm_init)
        self.buffers_rule = buffers
        self.teacher_training_mode = teacher_training_mode
        self.schedule = schedule
        self._momentum = float(base_ema_coefficient)  # the host's copy: read without a sync
        for name, value in (
            ("base_ema_coefficient", base_ema_coefficient),
            ("final_ema_coefficient", final_ema_coefficient),
            ("ema_coefficient", base_ema_coefficient),
        ):
            self.register_buffer(name, torch.tensor(float(value), dtype=torch.float64))
        self._ends = (float(base_ema_coefficient), float(final_ema_coefficient))
        self.train(self.training)

    def train(self, mode: bool = True) -> TeacherStudentWrapper:
        """Set the student's mode; the teacher follows its own rule."""
        super().train(mode)
        if not self.shared:
            self.teacher.eval()
            if mode and self.teacher_training_mode:
                for module in self.teacher.modules():
                    if isinstance(module, nn.modules.batchnorm._BatchNorm):
                        module.train()
        return self

    def update_ema_coefficient(self, step: float, total: float) -> None:
        """Set m for a step, on the way from the base to the final value.

        Args:
            step: Optimizer step, counted from 0.
            total: Steps of the run.
        """
        curve = cosine_value if self.schedule == "cosine" else linear_value
        self._momentum = curve(step, total, *self._ends)
        self.ema_coefficient.fill_(self._momentum)

    def update_teacher(self) -> None:
        """Move the teacher towards the student."""
        if not self.shared and self.training:
            ema_update(self.teacher, self.student, self._momentum, buffers=self.buffers_rule)

    def forward_student(self, *args: Any, **kwargs: Any) -> Any:
        """The student's output."""
        return self.student(*args, **kwargs)

    def forward_teacher(self, *args: Any, **kwargs: Any) -> Any:
        """The teacher's output, without gradient."""
        with torch.no_grad():
            return self.teacher(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The teacher's output."""
        return self.forward_teacher(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._momentum = float(self.ema_coefficient)
        self._ends = (float(self.base_ema_coefficient), float(self.final_ema_coefficient))


def _teacher_of(student: nn.Module, warm_init: bool) -> nn.Module:
    teacher = copy.deepcopy(student).requires_grad_(False)
    if not warm_init:
        for module in teacher.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
    return teacher


def momentum_pair(student: nn.Module, start: float, end: float) -> TeacherStudentWrapper:
    """A pair whose teacher normalises its own batches, as in BYOL, MoCo and DINO.

    Args:
        student: The network that is trained.
        start: m at the first step.
        end: m at the end of the run.
    """
    return TeacherStudentWrapper(
        student,
        base_ema_coefficient=start,
        final_ema_coefficient=end,
        buffers="keep",
        teacher_training_mode=True,
    )
