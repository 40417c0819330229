"""DINO: each crop of the student predicts the teacher's distribution of the other large crops.

Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021, eq. 3 and
Algorithm 1. https://arxiv.org/abs/2104.14294
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from spt_losses._checks import check_dims, check_positive
from spt_losses._cross_entropy import entropy_of_pairs
from spt_losses._distributed import mean_of_rows
from spt_losses._numerics import no_autocast, widen
from spt_losses._teacher import TeacherTargets


def dino_loss(
    student_logits: Tensor,
    teacher_probs: Tensor,
    *,
    temperature: float = 0.1,
    skip_same_view: bool = True,
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """Cross-entropy of every pair of a student's and a teacher's crop.

    No tensor of pairs is built: each crop of the student meets the sum of its targets.

    Args:
        student_logits: Shape ``(S, B, K)``; crop ``i`` of the student is crop ``i`` of the teacher
            for the first ones.
        teacher_probs: Shape ``(T, B, K)``; detached here.
        temperature: Student's tau, above 0.
        skip_same_view: Leave out pairs of equal index, as DINO; DINOv2 exchanges the teacher's
            crops instead and keeps all.
        reduction: ``"mean"`` or ``"sum"`` over pairs; over ``B`` it is always the mean. DINOv2's code
            sums, those of DINO and DINOv3 average.

    Returns:
        Scalar. Averaged over ranks, it is the value over the rows of all ranks.

    Raises:
        TypeError: If an input is not of a floating-point dtype.
        ValueError: If shapes do not fit, there is no pair, or a setting is out of range.

    Ranks:
        mean over the rows of all ranks, which may differ in number

    Example:
        >>> import torch
        >>> crops = torch.zeros(2, 3, 4)
        >>> round(dino_loss(crops, crops.softmax(-1)).item(), 4)  # log 4
        1.3863
    """
    check_dims("student_logits", student_logits, "SBK")
    check_dims("teacher_probs", teacher_probs, "TBK")
    check_positive("temperature", temperature)
    students, teachers = len(student_logits), len(teacher_probs)
    if student_logits.shape[1:] != teacher_probs.shape[1:]:
        raise ValueError(
            "`student_logits` (S, B, K) and `teacher_probs` (T, B, K) must agree in B and K, got "
            f"{tuple(student_logits.shape)} and {tuple(teacher_probs.shape)}."
        )
    if reduction not in ("mean", "sum"):
        raise ValueError(f"`reduction` must be 'mean' or 'sum', got {reduction!r}.")
    same = min(students, teachers) if skip_same_view else 0
    pairs = students * teachers - same
    if pairs < 1:
        raise ValueError(
            "There is no pair of different crops: one crop of the student meets one of the teacher. "
            "Give more crops, or `skip_same_view=False`."
        )
    with no_autocast(student_logits):
        targets = widen(teacher_probs).unbind()
        rows = entropy_of_pairs(
            widen(student_logits), targets, temperature, skip_same=skip_same_view
        )  # (B,)
        return mean_of_rows(rows) / (pairs if reduction == "mean" else 1)


class DINOv1Loss(TeacherTargets):
    """DINO's objective with the teacher's centre; see :func:`dino_loss` and :class:`TeacherTargets`.

    Args:
        temperature_student: tau of the student, above 0.
        center_momentum: m of the centre, in [0, 1].
        accumulate: Batches per optimizer step.

    Example:
        >>> import torch
        >>> loss, teacher = DINOv1Loss(), torch.randn(2, 4, 8)
        >>> targets = loss.softmax_center_teacher(teacher, teacher_temp=0.04)
        >>> loss(torch.randn(6, 4, 8), targets).shape, loss.center.shape
        (torch.Size([]), torch.Size([8]))
    """

    def __init__(
        self,
        temperature_student: float = 0.1,
        center_momentum: float = 0.9,
        *,
        accumulate: int = 1,
    ) -> None:
        super().__init__(center_momentum, accumulate=accumulate)
        check_positive("temperature_student", temperature_student)
        self.temperature_student = temperature_student

    def forward(self, student_logits: Tensor, teacher_probs: Tensor) -> Tensor:
        """Loss of student logits ``(S, B, K)`` against teacher probabilities ``(T, B, K)``."""
        return dino_loss(student_logits, teacher_probs, temperature=self.temperature_student)

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return (
            f"temperature_student={self.temperature_student}, "
            f"center_momentum={self.center_momentum}"
        )
