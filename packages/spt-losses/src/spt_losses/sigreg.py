"""SIGReg: make random projections of the features follow a standard Gaussian.

Balestriero and LeCun, "LeJEPA: Provable and Scalable Self-Supervised Learning Without the
Heuristics", 2025, with the statistic of Epps and Pulley (1983), eq. 6.
https://arxiv.org/abs/2511.08544
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from spt_losses._checks import check_count, check_floating, check_positive, check_rows
from spt_losses._distributed import num_rows, sum_over_ranks
from spt_losses._draws import Draws
from spt_losses._numerics import no_autocast, refuse_second_derivative, widen


def epps_pulley(x: Tensor, *, t_max: float = 3.0, n_points: int = 17) -> Tensor:
    """Distance of each column's characteristic function from the standard Gaussian's.

    ``N`` times the integral over ``[-t_max, t_max]`` of the squared distance, weighted by
    ``exp(-t^2 / 2)``, by the trapezoid rule; by symmetry only ``t >= 0`` is evaluated.

    Args:
        x: Samples in rows, shape ``(N, K)``.
        t_max: End of the integral, above 0. The paper prints 5, its code has 3.
        n_points: Nodes from 0 to ``t_max``, odd and at least 3.

    Returns:
        Shape ``(K,)``, the statistic over the rows of all ranks, the same on each.

    Raises:
        TypeError: If ``x`` is not of a floating-point dtype.
        ValueError: If its shape is not ``(N, K)`` or a setting is out of range.

    Ranks:
        over the rows of all ranks, which may differ in number

    Example:
        >>> epps_pulley(torch.zeros(5, 1)).round(decimals=3)  # all mass at 0: far from Gaussian
        tensor([2.0100])
    """
    check_rows("x", x)
    check_rule(t_max, n_points)
    with no_autocast(x):
        return statistic(widen(x), num_rows(x), t_max, n_points)


def statistic(x: Tensor, rows: int, t_max: float, n_points: int) -> Tensor:
    """:func:`epps_pulley` of ``(..., N, K)``, with the number of rows over all ranks given."""
    step = t_max / (n_points - 1)
    t = step * torch.arange(n_points, dtype=x.dtype, device=x.device)
    gaussian = (-t.square() / 2).exp()
    weights = torch.full_like(t, 2 * step)
    weights[0] = weights[-1] = step
    sums: Tensor = _CharacteristicSums.apply(x, step, n_points)
    real, imaginary = sum_over_ranks(sums) / rows
    distance = (real - gaussian).square() + imaginary.square()  # (..., K, points)
    return rows * (distance @ (weights * gaussian))


class _CharacteristicSums(torch.autograd.Function):
    """Sums over rows of cos and sin of ``t x`` at equidistant nodes ``t``, node by node.

    Each node's cosine and sine are the previous one's turned by ``step x``, and backward turns them
    again, so that nothing of the size of samples times nodes is ever held.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: float, n_points: int) -> Tensor:
        ctx.step, ctx.n_points = step, n_points
        ctx.save_for_backward(x)
        sums = [torch.stack([c.sum(-2), s.sum(-2)]) for c, s in _turns(x, step, n_points)]
        return torch.stack(sums, dim=-1)  # (2, ..., K, points)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        refuse_second_derivative()
        (x,) = ctx.saved_tensors
        total = torch.zeros_like(x)
        for index, (c, s) in enumerate(_turns(x, ctx.step, ctx.n_points)):
            of_cos, of_sin = grad[..., index].unsqueeze(-2) * (index * ctx.step)
            total.addcmul_(c, of_sin).addcmul_(s, of_cos, value=-1)
        return total, None, None


def _turns(x: Tensor, step: float, n_points: int) -> Any:
    """Cosine and sine of ``k step x`` for each k in turn."""
    first_c, first_s = (x * step).cos(), (x * step).sin()
    c, s = torch.ones_like(x), torch.zeros_like(x)
    yield c, s
    for _ in range(n_points - 1):
        c, s = (
            (c * first_c).addcmul_(s, first_s, value=-1),
            (s * first_c).addcmul_(c, first_s),
        )
        yield c, s


def sigreg_loss(z: Tensor, directions: Tensor, *, t_max: float = 3.0, n_points: int = 17) -> Tensor:
    """Mean of :func:`epps_pulley` over projections on given directions.

    Args:
        z: Features, shape ``(N, D)``.
        directions: Columns, shape ``(D, K)``; made unit here, without gradient, equal on all ranks.
        t_max: See :func:`epps_pulley`.
        n_points: See :func:`epps_pulley`.

    Returns:
        Scalar over the rows of all ranks, the same on each.

    Raises:
        TypeError: If an input is not of a floating-point dtype.
        ValueError: If the shapes do not fit or a setting is out of range.

    Ranks:
        over the rows of all ranks, which may differ in number
    """
    check_rows("z", z)
    check_rule(t_max, n_points)
    with no_autocast(z):
        x = widen(z)
        projected = x @ unit_directions(directions, x)
        return statistic(projected, num_rows(z), t_max, n_points).mean()


def unit_directions(directions: Tensor, z: Tensor) -> Tensor:
    """Columns of length 1 in the precision of ``z``, whose width they must have."""
    check_floating("directions", directions)
    if directions.ndim != 2 or len(directions) != z.shape[-1] or not directions.shape[1]:
        raise ValueError(
            f"`directions` must have shape ({z.shape[-1]}, K), got {tuple(directions.shape)}."
        )
    a = widen(directions.detach()).to(z.device)
    return (a / torch.linalg.vecdot(a, a, dim=0).sqrt()).to(z.dtype)


def check_rule(t_max: float, n_points: int) -> None:
    """Refuse a quadrature rule that is none.

    Raises:
        ValueError: If a setting is out of range.
    """
    check_positive("t_max", t_max)
    if n_points < 3 or n_points % 2 == 0:
        raise ValueError(f"`n_points` must be odd and at least 3, got {n_points}.")


class EppsPulley(nn.Module):
    """The statistic of each column; see :func:`epps_pulley`.

    Args:
        t_max: End of the integral, above 0.
        n_points: Nodes from 0 to ``t_max``, odd.
    """

    def __init__(self, t_max: float = 3.0, n_points: int = 17) -> None:
        super().__init__()
        check_rule(t_max, n_points)
        self.t_max = t_max
        self.n_points = n_points

    def forward(self, x: Tensor) -> Tensor:
        """Statistics ``(K,)`` of samples ``(N, K)``."""
        return epps_pulley(x, t_max=self.t_max, n_points=self.n_points)

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"t_max={self.t_max}, n_points={self.n_points}"


class SlicedEppsPulley(nn.Module):
    """SIGReg with random directions; see :func:`sigreg_loss`.

    Directions are a function of the seed and of the number of the call, which is a buffer: the same
    on all ranks, and drawn where the features are. They stay as they are in evaluation mode.

    Args:
        num_slices: Directions per call.
        t_max: End of the integral.
        n_points: Nodes from 0 to ``t_max``, odd.
        seed: Of the directions.

    Example:
        >>> SlicedEppsPulley(num_slices=8)(torch.randn(16, 4)).shape
        torch.Size([])
    """

    def __init__(
        self, num_slices: int = 1024, t_max: float = 3.0, n_points: int = 17, *, seed: int = 0
    ) -> None:
        super().__init__()
        check_count("num_slices", num_slices)
        check_rule(t_max, n_points)
        self.num_slices = num_slices
        self.t_max = t_max
        self.n_points = n_points
        self.draws = Draws(seed)

    def forward(self, z: Tensor, directions: Tensor | None = None) -> Tensor:
        """Loss of features ``(N, D)``; directions ``(D, K)`` may be given."""
        if directions is None:
            directions = self.draws.normal(z.shape[-1], self.num_slices)
        return sigreg_loss(z, directions, t_max=self.t_max, n_points=self.n_points)

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"num_slices={self.num_slices}, t_max={self.t_max}, n_points={self.n_points}"
