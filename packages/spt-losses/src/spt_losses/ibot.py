"""iBOT: the student predicts the teacher's distribution at each patch that was masked.

Zhou et al., "iBOT: Image BERT Pre-Training with Online Tokenizer", ICLR 2022, eq. 2.
https://arxiv.org/abs/2111.07832
"""

from __future__ import annotations

import torch
from torch import Tensor

from spt_losses._checks import check_positive, check_same_shape
from spt_losses._cross_entropy import soft_cross_entropy
from spt_losses._distributed import num_rows, world_size
from spt_losses._numerics import no_autocast, widen
from spt_losses._teacher import TeacherTargets


def ibot_patch_loss(
    student_patch_logits: Tensor,
    teacher_patch_probs: Tensor,
    mask: Tensor | None = None,
    *,
    temperature: float = 0.1,
) -> Tensor:
    """Cross-entropy at masked patches, each image weighing the same.

    Args:
        student_patch_logits: At the masked patches of all images in row-major order, ``(M, K)``.
        teacher_patch_probs: At the same patches, ``(M, K)``; detached here.
        mask: True where masked, shape ``(N, P)`` with ``M`` entries. Patches of an image weigh one
            over their number, and images without any count in the mean, as in the official codes
            of iBOT and DINOv2. Without it, the mean over the ``M`` patches.
        temperature: Student's tau, above 0.

    Returns:
        Scalar. Averaged over ranks, it is the value over the images of all ranks.

    Raises:
        TypeError: If an input is not of a floating-point dtype, or the mask not of bool.
        ValueError: If the shapes do not fit or ``temperature`` is not above 0.

    Ranks:
        mean over the images (without a mask, over the patches) of all ranks, which may differ in
        number; a rank may have no masked patch

    Example:
        >>> logits, targets = torch.zeros(2, 4), torch.full((2, 4), 0.25)
        >>> mask = torch.tensor([[True, True, False], [False, False, False]])
        >>> round(ibot_patch_loss(logits, targets, mask).item(), 4)  # half of log 4
        0.6931
    """
    check_positive("temperature", temperature)
    check_same_shape(
        student_patch_logits=student_patch_logits, teacher_patch_probs=teacher_patch_probs
    )
    for name, x in (("student", student_patch_logits), ("teacher", teacher_patch_probs)):
        if not x.is_floating_point():
            raise TypeError(
                f"The {name}'s patches must be of a floating-point dtype, got {x.dtype}."
            )
    if student_patch_logits.ndim != 2:
        raise ValueError(
            "`student_patch_logits` must have shape (M, K), the masked patches alone, got "
            f"{tuple(student_patch_logits.shape)}."
        )
    with no_autocast(student_patch_logits):
        logits, targets = widen(student_patch_logits), widen(teacher_patch_probs)
        rows = soft_cross_entropy(logits[None], [targets], temperature)  # (M,)
        if mask is None:
            return rows.sum() * (world_size() / max(num_rows(rows), 1))
        weights = _weights(mask, len(rows), rows.dtype)
        return torch.dot(rows, weights) * (world_size() / num_rows(mask))


def _weights(mask: Tensor, patches: int, dtype: torch.dtype) -> Tensor:
    """One over the number of masked patches of each patch's image, shape ``(M,)``.

    The number of patches is given, so that the device is not asked for it.
    """
    if mask.dtype != torch.bool:
        raise TypeError(f"`mask` must be of dtype torch.bool, got {mask.dtype}.")
    if mask.ndim != 2 or not len(mask):
        raise ValueError(f"`mask` must have shape (N, P) with N >= 1, got {tuple(mask.shape)}.")
    counts = mask.sum(1)
    if (
        mask.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and (hidden := int(counts.sum())) != patches
    ):
        raise ValueError(f"`mask` hides {hidden} patches; {patches} rows were given.")
    shares = counts.clamp(min=1).to(dtype).reciprocal()
    return shares.repeat_interleave(counts, output_size=patches)


class iBOTPatchLoss(TeacherTargets):
    """The patch term of iBOT and DINOv2; see :func:`ibot_patch_loss` and :class:`TeacherTargets`.

    iBOT centres by all patches of the teacher, DINOv2 by the masked ones: hand over the rows that
    are to count.

    Args:
        student_temp: tau of the student, above 0.
        center_momentum: m of the centre, in [0, 1].
        accumulate: Batches per optimizer step.
    """

    def __init__(
        self, student_temp: float = 0.1, center_momentum: float = 0.9, *, accumulate: int = 1
    ) -> None:
        super().__init__(center_momentum, accumulate=accumulate)
        check_positive("student_temp", student_temp)
        self.student_temp = student_temp

    def forward(
        self,
        student_patch_logits: Tensor,
        teacher_patch_probs: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Loss at masked patches, student's logits and teacher's probabilities ``(M, K)``."""
        return ibot_patch_loss(
            student_patch_logits, teacher_patch_probs, mask, temperature=self.student_temp
        )

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"student_temp={self.student_temp}, center_momentum={self.center_momentum}"
