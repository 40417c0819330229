"""A student and the moving average of its weights, updated inside the training step.

He et al., "Momentum Contrast", CVPR 2020, eq. 2, https://arxiv.org/abs/1911.05722; the cosine of
Grill et al., "Bootstrap Your Own Latent", NeurIPS 2020, section 3.2, https://arxiv.org/abs/2006.07733.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from spt_jax._compat import modules_of, read, write


class EMAParam(nnx.Variable):
    """A weight of a teacher: no gradient, no optimizer."""


class FrozenParam(nnx.Variable):
    """A weight that stays as it is."""


class TeacherStudentWrapper(nnx.Module):
    """A network with its teacher, ``t <- m t + (1 - m) s`` after each optimizer step.

    The engine updates it in the compiled step, with ``m`` from the step's number. Only weights are
    averaged; the teacher's BatchNorm normalises its own batches and keeps its own statistics, as
    in the codes of BYOL, MoCo and DINO. Its dropout and stochastic depth are always off.

    Args:
        student: The network that is trained.
        base_ema_coefficient: m at the first step, in [0, 1].
        final_ema_coefficient: m at the end of the run.
        schedule: How it is reached: on half a ``"cosine"``, or on a line (``"linear"``).

    Raises:
        ValueError: If a coefficient is out of range.
    """

    def __init__(
        self,
        student: nnx.Module,
        base_ema_coefficient: float = 0.996,
        final_ema_coefficient: float = 1.0,
        schedule: Literal["cosine", "linear"] = "cosine",
    ) -> None:
        if schedule not in ("cosine", "linear"):
            raise ValueError(f"`schedule` must be 'cosine' or 'linear', got {schedule!r}.")
        for name, value in (
            ("base_ema_coefficient", base_ema_coefficient),
            ("final_ema_coefficient", final_ema_coefficient),
        ):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"`{name}` must be in [0, 1], got {value}.")
        self.student = student
        self.teacher = as_teacher(student)
        self.base_ema_coefficient = float(base_ema_coefficient)
        self.final_ema_coefficient = float(final_ema_coefficient)
        self.schedule = schedule

    def forward_student(self, *args: Any, **kwargs: Any) -> Any:
        """The student's output."""
        return self.student(*args, **kwargs)

    def forward_teacher(self, *args: Any, **kwargs: Any) -> Any:
        """The teacher's output, without gradient."""
        return jax.lax.stop_gradient(self.teacher(*args, **kwargs))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The teacher's output."""
        return self.forward_teacher(*args, **kwargs)

    def ema_coefficient(self, step: Any, total: int | None) -> Any:
        """M for a step counted from 0, of ``total`` steps."""
        value = cosine_value if self.schedule == "cosine" else linear_value
        return value(step, total, self.base_ema_coefficient, self.final_ema_coefficient)

    def update_teacher(self, m: Any) -> None:
        """Move the teacher's weights towards the student's."""
        students = weights_of(self.student, nnx.Param)
        teachers = weights_of(self.teacher, EMAParam)
        for path, average in teachers.items():
            new = read(students[path])
            write(average, read(average) * m + new * (1 - m))

    def quiet_teacher(self) -> None:
        """Turn the teacher's dropout and stochastic depth off."""
        self.teacher.set_attributes(deterministic=True, raise_if_not_found=False)


def cosine_value(step: Any, total: int | None, start: float, end: float) -> Any:
    """Half a cosine from ``start`` at step 0 to ``end`` at ``total``, constant afterwards.

    Raises:
        ValueError: If the values differ and there is no ``total``.
    """
    if start == end:
        return start
    return end - (end - start) * 0.5 * (1.0 + jnp.cos(jnp.pi * _done(step, total)))


def linear_value(step: Any, total: int | None, start: float, end: float) -> Any:
    """A line from ``start`` at step 0 to ``end`` at ``total``, constant afterwards.

    Raises:
        ValueError: If the values differ and there is no ``total``.
    """
    return start if start == end else start + (end - start) * _done(step, total)


def _done(step: Any, total: int | None) -> Any:
    if total is None:
        raise ValueError(
            "A schedule over the whole run needs its length: set `max_epochs` and give a loader with "
            "a length, or set `max_steps`."
        )
    return jnp.clip(step / max(total, 1), 0.0, 1.0)


def as_teacher(student: nnx.Module) -> nnx.Module:
    """A copy whose weights are :class:`EMAParam`."""
    teacher: nnx.Module = nnx.clone(student)
    return retyped(teacher, EMAParam)


def freeze(module: nnx.Module) -> nnx.Module:
    """Take the weights of a module away from gradient and optimizer, in place."""
    return retyped(module, FrozenParam)


def retyped(module: nnx.Module, kind: Any) -> nnx.Module:
    """Make every weight of a module a variable of another kind, in place.

    Raises:
        TypeError: If a weight is not an attribute of a module.
    """
    for node in list(modules_of(module)):
        for name, value in list(vars(node).items()):
            if isinstance(value, nnx.Param):
                setattr(node, name, kind(read(value)))
    left = weights_of(module, nnx.Param)
    if left:
        raise TypeError(f"Weights must be attributes of modules; {list(left)} are not.")
    return module


def weights_of(module: nnx.Module, kind: Any) -> dict[tuple[Any, ...], Any]:
    """The variables of a kind, by their path."""
    return {tuple(path): node for path, node in nnx.iter_graph(module) if isinstance(node, kind)}


def teachers_of(module: nnx.Module) -> list[TeacherStudentWrapper]:
    """The wrappers in a module."""
    return [node for node in modules_of(module) if isinstance(node, TeacherStudentWrapper)]
