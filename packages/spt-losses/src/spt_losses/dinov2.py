"""DINOv2: DINO on class tokens, iBOT on masked patches, KoLeo on features.

Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024, section 4.
https://arxiv.org/abs/2304.07193
"""

from __future__ import annotations

from torch import Tensor, nn

from spt_losses._checks import check_not_negative
from spt_losses.dino import DINOv1Loss
from spt_losses.ibot import iBOTPatchLoss
from spt_losses.koleo import koleo_loss


class DINOv2Loss(nn.Module):
    """Weighted sum of the image-level, patch-level and spreading terms.

    The image-level term is DINO's mean over pairs of different crops, which is what the official
    code assembles from its sums; KoLeo is summed over the large crops.

    Args:
        dino_loss_weight: Weight of the image-level term.
        ibot_loss_weight: Weight of the patch-level term.
        temperature_student: tau of the image-level term, above 0.
        center_momentum: m of both centres, in [0, 1].
        student_temp: tau of the patch-level term, above 0.
        koleo_loss_weight: Weight of KoLeo; 0.1 in the paper.
        accumulate: Batches per optimizer step.

    Attributes:
        dino_loss: A :class:`DINOv1Loss`, which also makes the teacher's targets.
        ibot_loss: An :class:`iBOTPatchLoss`, likewise.

    Raises:
        ValueError: If a setting is out of range.

    Ranks:
        as its parts: the value over the images of all ranks
    """

    def __init__(
        self,
        dino_loss_weight: float = 1.0,
        ibot_loss_weight: float = 1.0,
        temperature_student: float = 0.1,
        center_momentum: float = 0.9,
        student_temp: float = 0.1,
        *,
        koleo_loss_weight: float = 0.1,
        accumulate: int = 1,
    ) -> None:
        super().__init__()
        check_not_negative(
            dino_loss_weight=dino_loss_weight,
            ibot_loss_weight=ibot_loss_weight,
            koleo_loss_weight=koleo_loss_weight,
        )
        self.dino_loss_weight = dino_loss_weight
        self.ibot_loss_weight = ibot_loss_weight
        self.koleo_loss_weight = koleo_loss_weight
        self.dino_loss = DINOv1Loss(temperature_student, center_momentum, accumulate=accumulate)
        self.ibot_loss = iBOTPatchLoss(student_temp, center_momentum, accumulate=accumulate)

    def forward(
        self,
        student_cls_logits: Tensor,
        teacher_cls_probs: Tensor,
        student_patch_logits: Tensor | None = None,
        teacher_patch_probs: Tensor | None = None,
        mask: Tensor | None = None,
        student_features: Tensor | None = None,
    ) -> Tensor:
        """The weighted sum; terms whose inputs are left out are left out.

        Args:
            student_cls_logits: Shape ``(S, B, K)``, large crops first.
            teacher_cls_probs: Shape ``(T, B, K)``.
            student_patch_logits: At masked patches of the large crops, ``(M, K')``.
            teacher_patch_probs: At the same patches, ``(M, K')``.
            mask: True where masked, ``(T * B, P)``.
            student_features: Class tokens of the large crops before the head, ``(T, B, D)``.

        Raises:
            ValueError: If only one side of the patches is given.
        """
        loss = self.dino_loss_weight * self.dino_loss(student_cls_logits, teacher_cls_probs)
        if (student_patch_logits is None) != (teacher_patch_probs is None):
            raise ValueError("Give `student_patch_logits` and `teacher_patch_probs`, or neither.")
        if student_patch_logits is not None and teacher_patch_probs is not None:
            patches = self.ibot_loss(student_patch_logits, teacher_patch_probs, mask)
            loss = loss + self.ibot_loss_weight * patches
        if student_features is not None and self.koleo_loss_weight:
            for crop in student_features:
                loss = loss + self.koleo_loss_weight * koleo_loss(crop)
        return loss
