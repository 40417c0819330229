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
    anchors: Tensor, candidates: Tensor, hidden: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of each row, and its softmax in the buffer of the similarities."""
    block = anchors @ candidates.T  # (n, M)
    if hidden is not None:
        block.scatter_(1, hidden, -torch.inf)
    if mask is not None:
        block.masked_fill_(mask, -torch.inf)
    largest = block.amax(1, keepdim=True)
    block.sub_(largest).exp_()
    total = block.sum(1, keepdim=True)
    lse = (largest + total.log()).squeeze(1)
    return lse, block.div_(total)


class _ContrastSum(torch.autograd.Function):
    """``sum_i (lse_i - positive_i)`` with the gradients formed in forward."""

    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        candidates: Tensor,
        positives: Tensor,
        scale: Tensor,
        hidden: Tensor | None,
        mask: Tensor | None,
        block_rows: int,
        with_gradient: bool,
    ) -> Tensor:
        scaled = anchors * scale
        losses = torch.empty_like(positives)
        grad_anchors = torch.empty_like(anchors) if with_gradient else None
        grad_candidates = torch.zeros_like(candidates) if with_gradient else None
        for start in range(0, len(anchors), block_rows):
            rows = slice(start, start + block_rows)
            lse, softmax = _softmax_block(
                scaled[rows],
                candidates,
                None if hidden is None else hidden[rows],
                None if mask is None else mask[rows],
            )
            losses[rows] = lse - positives[rows]
            if grad_anchors is not None and grad_candidates is not None:
                grad_anchors[rows] = softmax @ candidates
                grad_candidates.addmm_(softmax.T, scaled[rows])
        if grad_anchors is not None:
            grad_scale = (grad_anchors * anchors).sum()
            ctx.save_for_backward(grad_anchors.mul_(scale), grad_candidates, grad_scale)
            ctx.rows = len(positives)
        return losses.sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        anchors, candidates, scale = ctx.saved_tensors
        return (
            grad * anchors,
            grad * candidates,
            (-grad).expand(ctx.rows),
            grad * scale,
            None,
            None,
            None,
            None,
        )


def contrast_sum(
    anchors: Tensor,
    candidates: Tensor,
    positives: Tensor,
    scale: Tensor | float,
    *,
    hidden: Tensor | None = None,
    mask: Tensor | None = None,
    chunk_size: int | None = None,
) -> Tensor:
    """Sum over anchors of log-sum-exp over candidates minus the positive logit.

    Args:
        anchors: Shape ``(n, D)``.
        candidates: Shape ``(M, D)``.
        positives: Logits of the positives, scale included, shape ``(n,)``.
        scale: What multiplies the similarities; may be a tensor with gradient.
        hidden: Columns to leave out in each row, int64 of shape ``(n, h)``.
        mask: True where a candidate is to be left out, shape ``(n, M)``.
        chunk_size: Anchors taken at a time; ``None`` takes all at once.

    Returns:
        Scalar. It can be differentiated once.
    """
    scale = torch.as_tensor(scale, dtype=anchors.dtype, device=anchors.device)
    inputs = (anchors, candidates, positives, scale)
    with_gradient = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    rows = chunk_size or len(anchors)
    total: Tensor = _ContrastSum.apply(*inputs, hidden, mask, rows, with_gradient)
    return total
