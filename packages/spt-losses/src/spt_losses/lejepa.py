"""LeJEPA: views of an image agree, and each view's features follow a standard Gaussian.

Balestriero and LeCun, "LeJEPA: Provable and Scalable Self-Supervised Learning Without the
Heuristics", 2025, eq. 7. https://arxiv.org/abs/2511.08544
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spt_losses._checks import check_count, check_dims, check_fraction, check_same_shape
from spt_losses._distributed import num_rows, world_size
from spt_losses._draws import Draws
from spt_losses._numerics import no_autocast, widen
from spt_losses.sigreg import check_rule, statistic, unit_directions


def lejepa_loss(
    projections: Tensor,
    directions: Tensor,
    *,
    lamb: float = 0.02,
    n_global: int | None = None,
    t_max: float = 3.0,
    n_points: int = 17,
) -> Tensor:
    """``lambda SIGReg + (1 - lambda)`` times the squared distance of views from their centre.

    Args:
        projections: Shape ``(V, N, D)``, global views first.
        directions: Columns, shape ``(D, K)``; made unit here, without gradient, equal on all ranks.
        lamb: lambda, in [0, 1].
        n_global: How many views the centre is the mean of, as the paper; all of them if ``None``,
            as its minimal example.
        t_max: End of the integral, see :func:`epps_pulley`.
        n_points: Its nodes.

    Returns:
        Scalar. Averaged over ranks, it is the value over the rows of all ranks.

    Raises:
        TypeError: If an input is not of a floating-point dtype.
        ValueError: If the shapes do not fit or a setting is out of range.

    Ranks:
        SIGReg of each view, and the mean, over the rows of all ranks, which may differ in number

    Note:
        SIGReg is taken view by view over its N rows and averaged, as in the official minimal example.
    """
    invariance, spread = lejepa_terms(
        projections, directions, n_global=n_global, t_max=t_max, n_points=n_points
    )
    check_fraction(lamb=lamb)
    return lamb * spread + (1 - lamb) * invariance


def lejepa_terms(
    projections: Tensor,
    directions: Tensor,
    *,
    n_global: int | None = None,
    t_max: float = 3.0,
    n_points: int = 17,
) -> tuple[Tensor, Tensor]:
    """The invariance and SIGReg of :func:`lejepa_loss`, unweighted; arguments as there."""
    check_dims("projections", projections, "VND")
    check_rule(t_max, n_points)
    views, _, width = projections.shape
    if n_global is not None and not 1 <= n_global <= views:
        raise ValueError(
            f"`n_global` must be in [1, {views}], the number of views, got {n_global}."
        )
    with no_autocast(projections):
        z = widen(projections)
        rows = num_rows(z[0])
        centre = z[:n_global].mean(0)
        invariance = (z - centre).square().sum() * world_size() / (views * rows * width)
        projected = z @ unit_directions(directions, z)  # (V, N, K)
        return invariance, statistic(projected, rows, t_max, n_points).mean()


class LeJEPALoss(nn.Module):
    """LeJEPA's objective with random directions; see :func:`lejepa_loss`.

    Directions are a function of the seed and of the number of the call, which is a buffer: the same
    on all ranks, and drawn where the features are. They stay as they are in evaluation mode.

    Args:
        lamb: lambda, in [0, 1].
        num_slices: Directions per call.
        t_max: End of the integral.
        n_points: Nodes from 0 to ``t_max``, odd.
        seed: Of the directions.

    Example:
        >>> LeJEPALoss(num_slices=8)(torch.randn(2, 16, 4)).shape
        torch.Size([])
    """

    def __init__(
        self,
        lamb: float = 0.02,
        num_slices: int = 1024,
        t_max: float = 3.0,
        n_points: int = 17,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_fraction(lamb=lamb)
        check_count("num_slices", num_slices)
        check_rule(t_max, n_points)
        self.lamb = lamb
        self.num_slices = num_slices
        self.t_max = t_max
        self.n_points = n_points
        self.draws = Draws(seed)

    def forward(
        self,
        projections: Tensor | Sequence[Tensor],
        n_global: int | None = None,
        directions: Tensor | None = None,
    ) -> Tensor:
        """Loss of projections ``(V, N, D)``, global views first; directions may be given."""
        invariance, spread = self.terms(projections, n_global, directions)
        return self.lamb * spread + (1 - self.lamb) * invariance

    def terms(
        self,
        projections: Tensor | Sequence[Tensor],
        n_global: int | None = None,
        directions: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Invariance and SIGReg, unweighted, as for logging."""
        if not isinstance(projections, Tensor):
            check_same_shape(**{f"projections[{i}]": z for i, z in enumerate(projections)})
            projections = torch.stack(list(projections))
        if directions is None:
            directions = self.draws.normal(projections.shape[-1], self.num_slices)
        return lejepa_terms(
            projections,
            directions,
            n_global=n_global,
            t_max=self.t_max,
            n_points=self.n_points,
        )

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return (
            f"lamb={self.lamb}, num_slices={self.num_slices}, t_max={self.t_max}, "
            f"n_points={self.n_points}"
        )
