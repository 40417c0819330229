"""TiCo: agree across views while avoiding the directions in which features pile up.

Zhu et al., "TiCo: Transformation Invariance and Covariance Contrast", 2022, eq. 5.
https://arxiv.org/abs/2206.10698
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from spt_losses._checks import check_fraction, check_not_negative, check_paired
from spt_losses._distributed import mean_of_rows, num_rows, row_counts, world_size
from spt_losses._numerics import no_autocast, refuse_second_derivative, unit, widen
from spt_losses._pending import Pending


def tico_loss(
    z1: Tensor,
    z2: Tensor,
    covariance: Tensor | None = None,
    *,
    beta: float = 0.9,
    rho: float = 20.0,
) -> tuple[Tensor, Tensor]:
    """``1 - cos + rho z1^T C z1`` with ``C = beta C' + (1 - beta) z1^T z1 / N``, uncentred.

    Args:
        z1: Projections of the online branch, shape ``(N, D)``; normalised here.
        z2: Of the other view's momentum branch, ``(N, D)``; pass them without gradient.
        covariance: C', symmetric, shape ``(D, D)``; zero if ``None``.
        beta: Weight of the past, in [0, 1].
        rho: Weight of the contrast, at least 0; 8 in the paper, 20 in its first ports.

    Returns:
        The scalar, which averaged over ranks is the value over the rows of all ranks; and this
        batch's ``z1^T z1 / N`` over all ranks, detached, to move the covariance with.

    Raises:
        TypeError: If an input is not of a floating-point dtype.
        ValueError: If shapes do not fit or a setting is out of range.

    Ranks:
        covariance and mean over the rows of all ranks, which may differ in number

    Note:
        The gradient is that of the formula: it also flows through this batch's share of C. The port
        in lightly detaches that share; the values are the same.
    """
    check_paired(z1, z2, names=("z1", "z2"))
    check_fraction(beta=beta)
    check_not_negative(rho=rho)
    counts = row_counts(z1)
    with no_autocast(z1):
        x = unit(widen(z1))
        if covariance is not None:
            _check_covariance(covariance, x.shape[1])
            covariance = covariance.detach().to(x)
        contrast, batch = _Contrast.apply(x, covariance, sum(counts), beta)
        agreement = mean_of_rows((x * unit(widen(z2))).sum(1), counts)
        return 1 - agreement + rho * contrast, batch


class _Contrast(torch.autograd.Function):
    """Mean of ``x^T C x``, and the batch's share of C, from which the past is kept apart."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, past: Tensor | None, rows: int, beta: float
    ) -> tuple[Tensor, Tensor]:
        batch = x.mT @ x  # (D, D)
        if world_size() > 1:
            dist.all_reduce(batch)
        batch.div_(rows)
        # the mean is the trace of C times the batch's moments, which are in C as well
        value = (1 - beta) * torch.linalg.vector_norm(batch).square()
        slope = batch * (4 * (1 - beta) / rows)
        if past is not None:
            value += beta * torch.dot(past.flatten(), batch.flatten())
            slope.add_(past, alpha=2 * beta / rows)
        ctx.save_for_backward(x, slope)
        ctx.mark_non_differentiable(batch)
        return value, batch

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        x, slope = ctx.saved_tensors
        if world_size() > 1:
            grad = grad.clone()
            dist.all_reduce(grad)
        with no_autocast(x):
            return (x @ slope).mul_(grad), None, None, None


def _check_covariance(covariance: Tensor, dim: int) -> None:
    if covariance.shape != (dim, dim):
        raise ValueError(
            f"`covariance` must have shape ({dim}, {dim}), got {tuple(covariance.shape)}."
        )


def _mean(batches: list[tuple[Tensor, ...]]) -> Tensor:
    """Mean of moments over the rows of all batches, each given with their number."""
    if len(batches) == 1:
        return batches[0][0]
    moments, rows = (torch.stack(parts) for parts in zip(*batches, strict=True))
    return torch.tensordot(rows / rows.sum(), moments, dims=1)


class TiCoLoss(nn.Module):
    """TiCo with its running covariance, a buffer that starts at zero; see :func:`tico_loss`.

    In training mode the covariance moves once per optimizer step, by the mean over the batches of
    the step; each batch's loss uses the covariance before the step and its own share.

    Args:
        beta: Weight of the past, in [0, 1].
        rho: Weight of the contrast, at least 0.
        accumulate: Batches per optimizer step. A shorter last window is closed with :meth:`flush`.

    Example:
        >>> loss = TiCoLoss()
        >>> loss(torch.randn(4, 3), torch.randn(4, 3)).shape, loss.covariance.shape
        (torch.Size([]), torch.Size([3, 3]))
    """

    covariance: Tensor | None

    def __init__(self, beta: float = 0.9, rho: float = 20.0, *, accumulate: int = 1) -> None:
        super().__init__()
        check_fraction(beta=beta)
        check_not_negative(rho=rho)
        self.beta = beta
        self.rho = rho
        self._pending = Pending(accumulate)
        self.register_buffer("covariance", None)

    def forward(self, z1: Tensor, z2: Tensor) -> Tensor:
        """Loss of online projections ``(N, D)`` and of the other view's ``(N, D)``."""
        loss, batch = tico_loss(z1, z2, self.covariance, beta=self.beta, rho=self.rho)
        if self.training and self._pending.add(batch, torch.full_like(batch[0, 0], num_rows(z1))):
            self.flush()
        return loss

    @torch.no_grad()
    def flush(self) -> None:
        """Move the covariance by the batches that wait."""
        batches = self._pending.take()
        if not batches:
            return
        if self.covariance is None:
            self.covariance = torch.zeros_like(batches[0][0])
        self.covariance.lerp_(_mean(batches).to(self.covariance), 1 - self.beta)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}covariance")
        if saved is not None and self.covariance is None:
            self.covariance = torch.zeros_like(saved)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"beta={self.beta}, rho={self.rho}"
