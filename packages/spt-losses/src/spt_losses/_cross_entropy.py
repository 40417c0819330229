"""Cross-entropy of logits with soft targets.

Its gradient, softmax minus target, is formed where the value is formed, block by block: beside the
targets, forward and backward hold the gradient and nothing else of its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spt_losses._numerics import refuse_second_derivative
from spt_losses._row_blocks import row_blocks


class _SoftCrossEntropy(torch.autograd.Function):
    """Sum over views of each row's cross-entropy, with the gradient formed in forward."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        temperature: float,
        needs_slope: bool,
        overwrite: bool,
        *targets: Tensor,
    ) -> Tensor:
        ctx.temperature = temperature
        slope = None  # (S, N, K)
        if needs_slope:
            slope = logits.detach() if overwrite else torch.empty_like(logits)
        values = torch.zeros_like(logits[0, :, 0])
        for view, target in enumerate(targets):
            x, q = row_blocks(logits[view]), row_blocks(target)
            slopes = [None] * len(x) if slope is None else row_blocks(slope[view])
            made = [_of_block(*block, temperature) for block in zip(x, q, slopes, strict=True)]
            values += made[0] if len(made) == 1 else torch.cat(made)
        ctx.save_for_backward(slope)
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        (slope,) = ctx.saved_tensors
        return slope * (grad / -ctx.temperature).unsqueeze(1), *(None,) * (3 + len(slope))


def _of_block(x: Tensor, q: Tensor, slope: Tensor | None, temperature: float) -> Tensor:
    """Cross-entropy of each row; minus the slope, ``q - p sum(q)``, is written."""
    log_p = (x / temperature).log_softmax(1)
    if slope is not None:
        torch._log_softmax_backward_data(q, log_p, 1, log_p.dtype, out=slope)
    return log_p.mul_(q).sum(1).neg_()


def soft_cross_entropy(
    logits: Tensor, targets: Sequence[Tensor], temperature: float, *, overwrite: bool = False
) -> Tensor:
    """``- sum_s sum_k target_sk log softmax(logits_s / tau)_k`` of each row.

    Args:
        logits: Shape ``(S, N, K)``, in float32 or wider.
        targets: S of shape ``(N, K)``; no gradient flows to them.
        temperature: tau, above 0.
        overwrite: The gradient may take the place of the logits, which nobody needs any more.

    Returns:
        Shape ``(N,)``. It can be differentiated once.
    """
    needs_slope = torch.is_grad_enabled() and logits.requires_grad
    constant = [target.detach().to(logits.dtype) for target in targets]
    values: Tensor = _SoftCrossEntropy.apply(logits, temperature, needs_slope, overwrite, *constant)
    return values


def entropy_of_pairs(
    logits: Tensor,
    targets: Sequence[Tensor],
    temperature: float,
    *,
    skip_same: bool = True,
    overwrite: bool = False,
) -> Tensor:
    """Cross-entropy of each view with the targets of the others, summed over pairs.

    Each view meets the sum of its targets, so that its softmax is taken once.

    Args:
        logits: Shape ``(S, N, K)``.
        targets: T of shape ``(N, K)``, of the first views.
        temperature: tau, above 0.
        skip_same: Leave out pairs of equal index.
        overwrite: See :func:`soft_cross_entropy`.

    Returns:
        Shape ``(N,)``.
    """
    own = len(targets) if skip_same else 0  # views that have a target of their own to leave out
    met = [
        _total([target for index, target in enumerate(targets) if index != view], like=targets[0])
        for view in range(min(own, len(logits)))
    ]
    if len(logits) > own:
        met += [_total(targets, like=targets[0])] * (len(logits) - own)
    return soft_cross_entropy(logits, met, temperature, overwrite=overwrite)


def _total(tensors: Sequence[Tensor], like: Tensor) -> Tensor:
    """Their sum, a single one as it is; zeros if there is none."""
    if not len(tensors):
        return torch.zeros_like(like)
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total
