"""Gram anchoring: keep the similarities among patches as an earlier teacher had them.

Simeoni et al., "DINOv3", 2025, eq. 2. https://arxiv.org/abs/2508.10104
"""

from __future__ import annotations

from torch import Tensor, nn

from spt_losses._checks import check_dims, check_same_shape
from spt_losses._distributed import gather_rows, mean_of_rows, num_rows, world_size
from spt_losses._numerics import no_autocast, unit, widen


def gram_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    normalize: bool = True,
    img_level: bool = True,
    remove_neg: bool = False,
    remove_only_teacher_neg: bool = False,
) -> Tensor:
    """Mean squared difference of the two matrices of similarities among patches.

    Args:
        student: Patch features, shape ``(N, P, D)``.
        teacher: Of the earlier teacher, ``(N, P, D)``; detached here.
        normalize: Use unit rows.
        img_level: One matrix per image; else one over all patches (of all ranks).
        remove_neg: Set negative entries of both matrices to 0.
        remove_only_teacher_neg: Set the teacher's negative entries to 0.

    Returns:
        Scalar. Averaged over ranks, it is the value over the images of all ranks.

    Raises:
        TypeError: If an input is not of a floating-point dtype.
        ValueError: If the shapes differ or are not ``(N, P, D)``.

    Ranks:
        over the images of all ranks, which may differ in number

    Note:
        The paper writes a squared Frobenius norm, a sum; the official code takes the mean over the
        entries, as here.

    Example:
        >>> import torch
        >>> x = torch.eye(2).unsqueeze(0)
        >>> round(gram_loss(x, torch.ones(1, 2, 2)).item(), 4)  # entries (0, 1; 1, 0)
        0.5
    """
    check_dims("student", student, "NPD")
    check_dims("teacher", teacher, "NPD")
    check_same_shape(student=student, teacher=teacher)
    with no_autocast(student):
        s, t = widen(student), widen(teacher.detach())
        if normalize:
            s, t = unit(s), unit(t)
        if img_level:
            error = _squared_error(s, s, t, t, remove_neg, remove_only_teacher_neg)
            return mean_of_rows(error.mean((1, 2)))
        s, t = s.flatten(0, 1), t.flatten(0, 1)
        sides = (s, gather_rows(s), t, gather_rows(t))
        error = _squared_error(*sides, remove_neg, remove_only_teacher_neg)
        return error.sum() * world_size() / num_rows(s) ** 2


def _squared_error(
    s: Tensor, all_s: Tensor, t: Tensor, all_t: Tensor, both: bool, teacher_only: bool
) -> Tensor:
    student, teacher = s @ all_s.mT, t @ all_t.mT
    if both or teacher_only:
        teacher = teacher.clamp(min=0)
    if both:
        student = student.clamp(min=0)
    return (student - teacher).square()


class GramLoss(nn.Module):
    """Gram anchoring; see :func:`gram_loss` for the settings."""

    def __init__(
        self,
        normalize: bool = True,
        img_level: bool = True,
        remove_neg: bool = False,
        remove_only_teacher_neg: bool = False,
    ) -> None:
        super().__init__()
        self.settings = {
            "normalize": normalize,
            "img_level": img_level,
            "remove_neg": remove_neg,
            "remove_only_teacher_neg": remove_only_teacher_neg,
        }

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Loss of patch features ``(N, P, D)`` of student and teacher."""
        return gram_loss(student, teacher, **self.settings)

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return ", ".join(f"{name}={value}" for name, value in self.settings.items())
