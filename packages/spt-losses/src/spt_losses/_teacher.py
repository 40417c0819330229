"""Targets from a teacher's logits: centred and sharpened, or balanced by Sinkhorn-Knopp."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from spt_losses._checks import check_floating, check_fraction, check_positive
from spt_losses._distributed import sum_over_ranks
from spt_losses._numerics import no_autocast, widen
from spt_losses._pending import Pending
from spt_losses._row_blocks import row_blocks
from spt_losses.sinkhorn import sinkhorn_knopp


class TeacherTargets(nn.Module):
    """Holds the centre of the teacher's logits, a buffer of shape ``(K,)`` that starts at zero.

    The buffer appears with the first logits, or with the checkpoint that is loaded. What a step's
    batches bring moves it once, ``c <- m c + (1 - m) mean``, with the mean over the rows of all
    batches of the step and of all ranks.

    Args:
        center_momentum: m, in [0, 1].
        accumulate: Batches per optimizer step. A shorter last window is closed with
            :meth:`apply_center_update`.
    """

    center: Tensor | None

    def __init__(self, center_momentum: float = 0.9, *, accumulate: int = 1) -> None:
        super().__init__()
        check_fraction(center_momentum=center_momentum)
        self.center_momentum = center_momentum
        self._pending = Pending(accumulate)
        self.register_buffer("center", None)

    def softmax_center_teacher(
        self, teacher_logits: Tensor, teacher_temp: float, update_centers: bool = True
    ) -> Tensor:
        """``softmax((x - c) / T)`` with the centre from before these logits.

        Args:
            teacher_logits: Shape ``(..., K)``.
            teacher_temp: T, above 0.
            update_centers: Also hand the logits to :meth:`update_center`, for the next step.

        Returns:
            As the logits, in float32 or wider, without gradient.

        Raises:
            TypeError: If the logits are not of a floating-point dtype.
            ValueError: If ``teacher_temp`` is not above 0, or K is another one.
        """
        check_floating("teacher_logits", teacher_logits)
        check_positive("teacher_temp", teacher_temp)
        with torch.no_grad(), no_autocast(teacher_logits):
            x = widen(teacher_logits)
            center = self._center_for(x)
            probabilities = torch.empty_like(x, memory_format=torch.contiguous_format)
            flat = x.flatten(0, -2), probabilities.flatten(0, -2)
            for rows, made in zip(*map(row_blocks, flat), strict=True):
                torch.softmax((rows - center).div_(teacher_temp), dim=-1, out=made)
        if update_centers:
            self.update_center(teacher_logits)
        return probabilities

    @torch.no_grad()
    def update_center(self, teacher_logits: Tensor) -> None:
        """Count the rows of ``teacher_logits`` ``(..., K)`` towards the next centre."""
        check_floating("teacher_logits", teacher_logits)
        with no_autocast(teacher_logits):
            x = widen(teacher_logits.detach()).flatten(0, -2)
            self._center_for(x)
            rows = x.new_full((1,), float(len(x)))
            if self._pending.add(sum_over_ranks(torch.cat([x.sum(0), rows]))):
                self.apply_center_update()

    @torch.no_grad()
    def apply_center_update(self) -> None:
        """Move the centre by what has been counted."""
        counted = [batch for (batch,) in self._pending.take()]
        if not counted or self.center is None:
            return
        total = counted[0] if len(counted) == 1 else torch.stack(counted).sum(0)
        total = total.to(self.center)
        share = (total[-1:] > 0).to(total.dtype) * (1 - self.center_momentum)  # no rows, no move
        self.center.lerp_(total[:-1] / total[-1:].clamp(min=1.0), share)

    def sinkhorn_knopp_teacher(
        self,
        teacher_logits: Tensor,
        teacher_temp: float,
        num_samples: int | Tensor | None = None,
        n_iterations: int = 3,
    ) -> Tensor:
        """:func:`sinkhorn_knopp` over all leading dimensions together; shape as the logits."""
        flat = teacher_logits.flatten(0, -2)
        return sinkhorn_knopp(flat, teacher_temp, num_samples, n_iterations).view_as(teacher_logits)

    def _center_for(self, x: Tensor) -> Tensor:
        if self.center is None:
            self.center = x.new_zeros(x.shape[-1])
        if self.center.shape[-1] != x.shape[-1]:
            raise ValueError(
                f"The centre has {self.center.shape[-1]} prototypes; the teacher's logits have "
                f"{x.shape[-1]}."
            )
        return self.center.to(x.device)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}center")
        if saved is not None and self.center is None:
            self.center = torch.zeros_like(saved)
        super()._load_from_state_dict(state_dict, prefix, *args)
