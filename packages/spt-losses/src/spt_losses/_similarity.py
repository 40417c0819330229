"""Log-sum-exp over a matrix of similarities, in one buffer or block by block.

The gradient of ``sum_i log sum_j exp(scale * a_i . c_j)`` is a softmax times the other side.
It is formed where the value is formed, in the buffer of the similarities, so that forward and
backward together hold one matrix, or one block of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spt_losses._numerics import refuse_second_derivative


def _softmax_block(
    anchors: Tensor,
    candidates: Tensor,
    positives: Tensor | None,
    hidden: Tensor | None,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of each row, and its softmax in the buffer of the similarities.

    ``positives`` are one more column of logits, which counts in the sum alone.
    """
    block = anchors @ candidates.T  # (n, M)
    if hidden is not None:
        block.scatter_(1, hidden, -torch.inf)
    if mask is not None:
        block.masked_fill_(mask, -torch.inf)
    largest = block.amax(1, keepdim=True)
    if positives is not None:
        largest = torch.maximum(largest, positives[:, None])
    block.sub_(largest).exp_()
    total = block.sum(1, keepdim=True)
    if positives is not None:
        total += (positives[:, None] - largest).exp()
    lse = (largest + total.log()).squeeze(1)
    return lse, block.div_(total)


class _ContrastSum(torch.autograd.Function):
    """``sum_i (lse_i - positive_i)`` with the gradients formed in forward."""

    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        others: Tensor | None,  # None where the anchors are the candidates
        positives: Tensor,
        scale: Tensor,
        hidden: Tensor | None,
        mask: Tensor | None,
        block_rows: int,
        positive_counts: bool,
        needs_anchors: bool,
        needs_candidates: bool,
    ) -> Tensor:
        scaled = anchors * scale
        candidates = anchors if others is None else others
        losses = torch.empty_like(positives)
        grad_anchors = torch.zeros_like(anchors) if needs_anchors else None
        grad_candidates = torch.zeros_like(candidates) if needs_candidates else None
        for start in range(0, len(anchors), block_rows):
            rows = slice(start, start + block_rows)
            lse, softmax = _softmax_block(
                scaled[rows],
                candidates,
                positives[rows] if positive_counts else None,
                None if hidden is None else hidden[rows],
                None if mask is None else mask[rows],
            )
            losses[rows] = lse - positives[rows]
            if others is None and grad_anchors is not None:  # both sides in one
                grad_anchors[rows].addmm_(softmax, scaled)
                grad_anchors.addmm_(softmax.T, scaled[rows])
            elif grad_anchors is not None:
                grad_anchors[rows].addmm_(softmax, candidates)
            if grad_candidates is not None:
                grad_candidates.addmm_(softmax.T, scaled[rows])
        # d log(sum + e^p) / dp is the positive's softmax, e^(p - lse)
        chosen = losses.neg().exp() if positive_counts else torch.zeros_like(losses)
        grad_scale = None
        if others is not None and grad_anchors is not None:
            grad_scale = torch.linalg.vecdot(grad_anchors, anchors).sum()
            grad_anchors.mul_(scale)
        ctx.save_for_backward(grad_anchors, grad_candidates, chosen - 1, grad_scale)
        return losses.sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        anchors, candidates, positives, scale = ctx.saved_tensors
        return (
            None if anchors is None else grad * anchors,
            None if candidates is None else grad * candidates,
            grad * positives,
            None if scale is None else grad * scale,
            *(None,) * 6,
        )


def contrast_sum(
    anchors: Tensor,
    candidates: Tensor,
    positives: Tensor,
    scale: Tensor | float,
    *,
    positive_counts: bool = False,
    hidden: Tensor | None = None,
    mask: Tensor | None = None,
    chunk_size: int | None = None,
) -> Tensor:
    """Sum over anchors of log-sum-exp over candidates minus the positive logit.

    Args:
        anchors: Shape ``(n, D)``.
        candidates: Shape ``(M, D)``. The anchors themselves, with a constant scale, get the gradient
            of both sides in one buffer.
        positives: Logits of the positives, scale included, shape ``(n,)``.
        scale: What multiplies the similarities; may be a tensor with gradient.
        positive_counts: Whether the positive is one more term of its row's sum of exponentials;
            otherwise it counts if it is among the candidates.
        hidden: Columns to leave out in each row, int64 of shape ``(n, h)``.
        mask: True where a candidate is to be left out, shape ``(n, M)``.
        chunk_size: Anchors taken at a time; ``None`` takes all at once.

    Returns:
        Scalar. It can be differentiated once.
    """
    scale = torch.as_tensor(scale, dtype=anchors.dtype, device=anchors.device)
    with_gradient = torch.is_grad_enabled()
    both = candidates is anchors and not scale.requires_grad
    total: Tensor = _ContrastSum.apply(
        anchors,
        None if both else candidates,
        positives,
        scale,
        hidden,
        mask,
        chunk_size or len(anchors),
        positive_counts,
        with_gradient and (anchors.requires_grad or scale.requires_grad),
        with_gradient and candidates.requires_grad and not both,
    )
    return total
