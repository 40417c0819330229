"""W-MSE: whiten each view, then match the views.

Ermolov et al., "Whitening for Self-Supervised Representation Learning", ICML 2021, eq. 5.
https://arxiv.org/abs/2007.06346
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from spt_losses._checks import check_count, check_fraction, check_rows, check_same_shape
from spt_losses._distributed import gather_rows, num_rows, row_counts
from spt_losses._draws import Draws
from spt_losses._numerics import cosine, no_autocast, widen


def whiten(x: Tensor, *, eps: float = 0.0) -> Tensor:
    """Centre rows and make their covariance the identity, by its Cholesky factor.

    Args:
        x: Shape ``(..., N, D)``, more rows than columns.
        eps: Share of the identity mixed into the (unbiased) covariance, in [0, 1].

    Returns:
        As ``x``.

    Raises:
        ValueError: If the covariance is singular.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
        >>> torch.cov(whiten(x).T).round(decimals=4).abs()
        tensor([[1., 0.],
                [0., 1.]])
    """
    check_fraction(eps=eps)
    n, d = x.shape[-2:]
    if not eps and n <= d:  # whatever rounding makes of it
        raise _singular(n, d)
    x = x - x.mean(-2, keepdim=True)
    covariance = x.mT @ x / (n - 1)
    if eps:
        identity = torch.eye(d, dtype=x.dtype, device=x.device)
        covariance = (1 - eps) * covariance + eps * identity
    factor, info = torch.linalg.cholesky_ex(covariance)
    if not eps and not torch.compiler.is_compiling() and bool(info.any()):
        raise _singular(n, d)
    return torch.linalg.solve_triangular(factor, x.mT, upper=False).mT


def _singular(n: int, d: int) -> ValueError:
    return ValueError(
        f"The covariance of {n} rows in {d} dimensions is singular. Use more rows than dimensions, "
        "fewer dimensions, or `eps` above 0."
    )


def wmse_loss(
    views: Sequence[Tensor],
    permutations: Tensor,
    *,
    w_size: int = 128,
    eps: float = 1e-3,
) -> Tensor:
    """``2 - 2 cos`` between whitened views, mean over rows, pairs of views and permutations.

    Args:
        views: Projections, each ``(N, D)``.
        permutations: Of the rows of all ranks, shape ``(iterations, N)``; cut into sub-batches, which
            are whitened view by view.
        w_size: Rows of a sub-batch. What does not divide is spread over the sub-batches.
        eps: See :func:`whiten`.

    Returns:
        Scalar. Averaged over ranks, it is the value over the rows of all ranks.

    Raises:
        TypeError: If a view is not of a floating-point dtype.
        ValueError: If the shapes differ, there are fewer than two views, or a covariance is singular.

    Ranks:
        sub-batches and mean over the rows of all ranks, which may differ in number; every rank
        whitens all rows
    """
    if len(views) < 2:
        raise ValueError(f"W-MSE needs at least 2 views, got {len(views)}.")
    check_same_shape(**{f"views[{i}]": z for i, z in enumerate(views)})
    for i, z in enumerate(views):
        check_rows(f"views[{i}]", z)
    check_count("w_size", w_size)
    counts = row_counts(views[0])
    rows = sum(counts)
    if permutations.ndim != 2 or permutations.shape[1] != rows:
        raise ValueError(
            f"`permutations` must have shape (iterations, {rows}), the rows of all ranks, got "
            f"{tuple(permutations.shape)}."
        )
    with no_autocast(views[0]):
        everyone = torch.stack([gather_rows(widen(z), counts) for z in views])  # (V, rows, D)
        pairs = list(combinations(range(len(views)), 2))
        total = everyone.new_zeros(())
        for permutation in permutations.to(everyone.device):
            for part in permutation.tensor_split(max(rows // w_size, 1)):
                white = whiten(everyone[:, part], eps=eps)
                for a, b in pairs:
                    total = total + (2 - 2 * cosine(white[a], white[b])).sum()
        return total / (len(permutations) * len(pairs) * rows)


class WMSELoss(nn.Module):
    """W-MSE with its random sub-batches; see :func:`wmse_loss`.

    Permutations are a function of the seed and of the number of the call, which is a buffer: the
    same on every rank, drawn where the features are. They stay as they are in evaluation mode.

    Args:
        w_size: Rows of a sub-batch; two to four times the width.
        w_iter: Permutations whose losses are averaged.
        eps: Share of the identity in the covariance; 0 in the official code, where a singular
            covariance is an error, looked for on the host.
        seed: Of the permutations.

    Example:
        >>> loss = WMSELoss(w_size=8)
        >>> loss(torch.randn(16, 4), torch.randn(16, 4)).shape
        torch.Size([])
    """

    def __init__(
        self, w_size: int = 128, w_iter: int = 1, eps: float = 1e-3, *, seed: int = 0
    ) -> None:
        super().__init__()
        check_count("w_size", w_size)
        check_count("w_iter", w_iter)
        check_fraction(eps=eps)
        self.w_size = w_size
        self.w_iter = w_iter
        self.eps = eps
        self.draws = Draws(seed)

    def forward(self, *views: Tensor, permutations: Tensor | None = None) -> Tensor:
        """Loss of two or more views ``(N, D)``; permutations ``(iterations, rows)`` may be given."""
        if len(views) < 2:
            raise ValueError(f"W-MSE needs at least 2 views, got {len(views)}.")
        if permutations is None:
            permutations = self.draws.permutations(self.w_iter, num_rows(views[0]))
        return wmse_loss(views, permutations, w_size=self.w_size, eps=self.eps)

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"w_size={self.w_size}, w_iter={self.w_iter}, eps={self.eps}"
