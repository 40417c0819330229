"""VICRegL: VICReg of whole images and of local features that match across views.

Bardes et al., "VICRegL: Self-Supervised Learning of Local Visual Features", NeurIPS 2022,
section 3. https://arxiv.org/abs/2210.01571
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spt_losses._checks import (
    check_dims,
    check_fraction,
    check_not_negative,
    check_rows,
    check_several_rows,
)
from spt_losses._distributed import mean_of_rows, row_counts
from spt_losses._matching import Match, all_matches, nearest_positions, visited_pairs
from spt_losses._moments import centered, decorrelation, variance
from spt_losses._numerics import no_autocast, widen


class _Weights(NamedTuple):
    """Weights of the three terms, the constant under the root, and rows per rank."""

    sim: float
    std: float
    cov: float
    epsilon: float
    counts: list[int]


def vicregl_loss(
    embeddings: Sequence[Tensor],
    maps: Sequence[Tensor],
    locations: Sequence[Tensor],
    *,
    alpha: float = 0.75,
    num_matches: tuple[int, int] = (20, 4),
    sim_coeff: float = 25.0,
    std_coeff: float = 25.0,
    cov_coeff: float = 1.0,
    epsilon: float = 1e-4,
    l2_all_matches: bool = True,
) -> Tensor:
    """``alpha`` times VICReg of the views plus ``1 - alpha`` times VICReg of matched positions.

    The first two views are the large ones; each of them is paired with every other view, in the
    first place of the pair. Within a pair, positions are matched from the first view to the second
    and back, by their features and by where they lie in the image.

    Note:
        As in the official code, matches by features keep every position unless
        ``l2_all_matches`` is off, ``num_matches`` holds the numbers of the two directions,
        whatever the views, and statistics are taken over images for each kept place by itself;
        kept places are in the order of the first view's positions. The paper keeps the best
        matches of both kinds and names their numbers by kind of view.

    Args:
        embeddings: Global projections, per view of shape ``(N, D)``.
        maps: Projections of local features, per view of shape ``(N, P, C)``; ``P`` may differ
            between views.
        locations: Where the positions lie in the image, in any unit, per view of shape
            ``(N, P, 2)`` or ``(N, h, w, 2)``.
        alpha: Weight of the global part, in ``[0, 1]``; 0.9 for a ResNet-50 and 0.75 for a
            ConvNeXt in the paper.
        num_matches: Matches kept from the first view of a pair to the second, and back.
        sim_coeff: Weight of the invariance terms.
        std_coeff: Weight of the variance terms.
        cov_coeff: Weight of the covariance terms.
        epsilon: Added to variances, under the root.
        l2_all_matches: Whether matching by features keeps every position.

    Returns:
        Scalar; averaged over ranks, it is the loss of the batches of all ranks.

    Raises:
        TypeError: If an input is not of a floating-point dtype.
        ValueError: If numbers of views, shapes or settings do not fit.

    Ranks:
        mean, variance and covariance over all ranks; batches may differ in size

    Example:
        >>> z, maps = torch.zeros(4, 3), torch.zeros(4, 9, 3)  # collapsed: hinges alone
        >>> locations = torch.rand(4, 3, 3, 2)
        >>> loss = vicregl_loss([z, z], [maps, maps], [locations] * 2, num_matches=(2, 2))
        >>> round(loss.item(), 4)  # 24.75 * (0.75 + 2 * 0.25), two kinds of matches
        30.9375
    """
    check_fraction(alpha=alpha)
    check_not_negative(
        sim_coeff=sim_coeff, std_coeff=std_coeff, cov_coeff=cov_coeff, epsilon=epsilon
    )
    places = [where.flatten(1, -2) if where.ndim > 2 else where for where in locations]
    _check_views(embeddings, maps, places)
    matches = all_matches([x.shape[1] for x in maps], num_matches, l2_all_matches)
    with no_autocast(embeddings[0]):
        counts = row_counts(embeddings[0])
        check_several_rows("VICRegL", sum(counts))
        weights = _Weights(sim_coeff, std_coeff, cov_coeff, epsilon, counts)
        whole = _global([widen(z) for z in embeddings], weights) if alpha > 0 else 0.0
        local = _local([widen(x) for x in maps], places, matches, weights) if alpha < 1 else 0.0
        return torch.as_tensor(alpha * whole + (1 - alpha) * local)


def _global(embeddings: list[Tensor], weights: _Weights) -> Tensor:
    pairs = visited_pairs(len(embeddings))
    apart = [
        mean_of_rows((embeddings[i] - embeddings[j]).square().mean(1), weights.counts)
        for i, j in pairs
    ]
    spread = [_spread(z[:, None], weights) for z in embeddings]
    return weights.sim * sum(apart) / len(pairs) + torch.stack(spread).mean()


def _local(
    maps: list[Tensor], places: list[Tensor], matches: dict[Match, int], weights: _Weights
) -> Tensor:
    total = maps[0].new_zeros(())
    for match, times in matches.items():
        near = places if match.by_location else maps
        kept, nearest = nearest_positions(near[match.a], near[match.b], match.keep)
        x = maps[match.a].take_along_dim(kept[..., None], 1)  # (N, keep, C)
        y = maps[match.b].take_along_dim(nearest[..., None], 1)
        apart = mean_of_rows((x - y).square().mean((1, 2)), weights.counts)
        spread = (_spread(x, weights) + _spread(y, weights)) / 2
        total = total + times * (weights.sim * apart + spread)
    return total / 2 / len(visited_pairs(len(maps)))  # the two directions are halved


def _spread(x: Tensor, weights: _Weights) -> Tensor:
    """Variance and covariance terms over images, mean over the places of ``(N, m, C)``."""
    rows = sum(weights.counts)
    x = centered(x, rows)
    deviation = (variance(x, rows - 1) + weights.epsilon).sqrt()  # (m, C)
    scale = weights.cov / deviation.numel()
    covariance = decorrelation(x.transpose(0, 1), None, rows - 1, diagonal=0.0, off_diagonal=scale)
    return weights.std * F.relu(1 - deviation).mean() + covariance


def _check_views(
    embeddings: Sequence[Tensor], maps: Sequence[Tensor], places: Sequence[Tensor]
) -> None:
    if not len(embeddings) == len(maps) == len(places) >= 2:
        raise ValueError(
            "`embeddings`, `maps` and `locations` must hold the same views, at least 2, got "
            f"{len(embeddings)}, {len(maps)} and {len(places)}."
        )
    for view, (z, local, where) in enumerate(zip(embeddings, maps, places, strict=True)):
        check_rows(f"embeddings[{view}]", z)
        check_dims(f"maps[{view}]", local, "NPC")
        check_dims(f"locations[{view}]", where, "NP2")
        if z.shape != embeddings[0].shape or local.shape[::2] != maps[0].shape[::2]:
            raise ValueError(
                f"Views must agree in batch size and widths, got {tuple(z.shape)} and "
                f"{tuple(local.shape)} for view {view}, {tuple(embeddings[0].shape)} and "
                f"{tuple(maps[0].shape)} for view 0."
            )
        if len(local) != len(z) or where.shape != (*local.shape[:2], 2):
            raise ValueError(
                f"`maps[{view}]` and `locations[{view}]` must have shapes (N, P, C) and (N, P, 2) "
                f"with N = {len(z)}, got {tuple(local.shape)} and {tuple(where.shape)}."
            )


class VICRegLLoss(nn.Module):
    """VICRegL; see :func:`vicregl_loss`.

    Args:
        alpha: Weight of the global part, in ``[0, 1]``.
        num_matches: Matches kept from the first view of a pair to the second, and back.
        sim_coeff: Weight of the invariance terms, at least 0.
        std_coeff: Weight of the variance terms, at least 0.
        cov_coeff: Weight of the covariance terms, at least 0.
        epsilon: Added to variances, under the root.
        l2_all_matches: Whether matching by features keeps every position.
    """

    def __init__(
        self,
        alpha: float = 0.75,
        num_matches: tuple[int, int] = (20, 4),
        sim_coeff: float = 25.0,
        std_coeff: float = 25.0,
        cov_coeff: float = 1.0,
        epsilon: float = 1e-4,
        *,
        l2_all_matches: bool = True,
    ) -> None:
        super().__init__()
        check_fraction(alpha=alpha)
        check_not_negative(
            sim_coeff=sim_coeff, std_coeff=std_coeff, cov_coeff=cov_coeff, epsilon=epsilon
        )
        self.alpha = alpha
        self.num_matches = num_matches
        self.sim_coeff = sim_coeff
        self.std_coeff = std_coeff
        self.cov_coeff = cov_coeff
        self.epsilon = epsilon
        self.l2_all_matches = l2_all_matches

    def forward(
        self, embeddings: Sequence[Tensor], maps: Sequence[Tensor], locations: Sequence[Tensor]
    ) -> Tensor:
        """Loss of views: embeddings ``(N, D)``, maps ``(N, P, C)``, locations ``(N, P, 2)``."""
        return vicregl_loss(
            embeddings,
            maps,
            locations,
            alpha=self.alpha,
            num_matches=self.num_matches,
            sim_coeff=self.sim_coeff,
            std_coeff=self.std_coeff,
            cov_coeff=self.cov_coeff,
            epsilon=self.epsilon,
            l2_all_matches=self.l2_all_matches,
        )

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"alpha={self.alpha}, num_matches={self.num_matches}"
