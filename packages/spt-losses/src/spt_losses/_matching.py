"""Which local features of two views belong together, as VICRegL matches them.

Bardes et al., "VICRegL: Self-Supervised Learning of Local Visual Features", NeurIPS 2022,
section 3.2. https://arxiv.org/abs/2210.01571
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from spt_losses._numerics import widen


class Match(NamedTuple):
    """Positions of view ``a`` each with its nearest of view ``b``, the closest ``keep`` kept."""

    by_location: bool
    a: int
    b: int
    keep: int


def visited_pairs(views: int) -> list[tuple[int, int]]:
    """Each of the first two views with every other."""
    return [(i, j) for i in range(2) for j in range(views) if j != i]


def all_matches(
    positions: list[int], num_matches: tuple[int, int], every: bool
) -> dict[Match, int]:
    """Every matching that a pair asks for, with how often it is asked for."""
    found: dict[Match, int] = {}  # torch 2.6 cannot trace a Counter
    for i, j in visited_pairs(len(positions)):
        for (a, b), keep in zip(((i, j), (j, i)), num_matches, strict=True):
            if not 1 <= keep <= positions[a]:
                raise ValueError(
                    f"`num_matches` must lie between 1 and the number of positions, got {keep} "
                    f"for the {positions[a]} positions of view {a}."
                )
            by_feature = Match(False, a, b, positions[a] if every else keep)
            for match in (by_feature, Match(True, a, b, keep)):
                found[match] = found.get(match, 0) + 1
    return found


@torch.no_grad()
def nearest_positions(a: Tensor, b: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Positions of ``a`` that are closest to one of ``b``, in order, and those of ``b``."""
    distance, nearest = torch.cdist(widen(a), widen(b)).min(2)  # (N, P)
    closest = distance.argsort(dim=1, stable=True)[:, :keep]
    kept = closest.sort(1).values
    return kept, nearest.take_along_dim(kept, 1)
