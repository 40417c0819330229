"""Nearest-neighbour alignment: NNCLR's swap, for the positive alone.

Alkin et al., "MIM-Refiner: A Contrastive Learning Boost from Intermediate Pre-Trained
Representations", ICLR 2025, eq. 2. https://arxiv.org/abs/2402.10093
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spt_losses._checks import (
    check_count,
    check_dims,
    check_positive,
    check_same_shape,
    check_width,
)
from spt_losses._distributed import gather_rows, rank, row_counts, world_size
from spt_losses._numerics import no_autocast, unit, widen
from spt_losses._similarity import contrast_sum


def nna_loss(
    projected: Tensor,
    neighbours: Tensor,
    predicted: Tensor,
    *,
    temperature: float = 0.2,
    chunk_size: int | None = None,
) -> Tensor:
    """Each image's neighbour picks the image's own prediction; its projection meets the others'.

    Args:
        projected: Projections of the G global views, shape ``(G, N, D)``; normalised and detached
            here. The official code takes them from a momentum head.
        neighbours: Their nearest rows of a support set, ``(G, N, D)``, as of :func:`nearest_rows`;
            normalised and detached here.
        predicted: Predictions of all views, global ones first, ``(V, N, D)``; normalised here.
        temperature: tau, above 0.
        chunk_size: Number of rows compared at a time; value and gradient stay the same.

    Returns:
        Scalar, mean over pairs of a global view and another view, and over rows. Averaged over
        ranks, it is the loss of the batches of all ranks.

    Raises:
        TypeError: If an input is not of a floating-point dtype.
        ValueError: If shapes do not fit, there is no pair, or a setting is out of range.

    Ranks:
        predictions of all ranks; batches may differ in size; one support set for all

    Note:
        The official loop over local views reads the predictions of the first views in their place;
        here each local view is its own.

    Example:
        >>> z = torch.eye(2).expand(2, -1, -1)
        >>> round(nna_loss(z, z, z, temperature=1.0).item(), 4)  # -log(e / (e + 1))
        0.3133
    """
    check_same_shape(projected=projected, neighbours=neighbours)
    for name, x in (("projected", projected), ("neighbours", neighbours), ("predicted", predicted)):
        check_dims(name, x, "VND")
    check_width("predicted", predicted, projected.shape[2])
    check_positive("temperature", temperature)
    check_count("chunk_size", chunk_size)
    pairs = _pairs(projected, predicted)
    with no_autocast(predicted):
        p = unit(widen(predicted))
        z, nn_z = (unit(widen(x.detach())).to(p.dtype) for x in (projected, neighbours))
        counts = row_counts(p[0])
        own = sum(counts[: rank()]) + torch.arange(p.shape[1], device=p.device)
        everyone = [gather_rows(view, counts) for view in p]
        total = p.new_zeros(())
        for i, j in pairs:
            total = total + contrast_sum(
                z[i],
                everyone[j],
                (nn_z[i] * p[j]).sum(1) / temperature,
                1 / temperature,
                positive_counts=True,
                hidden=own[:, None],
                chunk_size=chunk_size,
            )
        return total * world_size() / (len(pairs) * sum(counts))


def _pairs(projected: Tensor, predicted: Tensor) -> list[tuple[int, int]]:
    """Each global view with every other view."""
    if projected.shape[1] != predicted.shape[1] or len(projected) > len(predicted):
        raise ValueError(
            "`predicted` (V, N, D) must hold the N rows of the G views of `projected` (G, N, D) and "
            f"maybe more views, got {tuple(predicted.shape)} and {tuple(projected.shape)}."
        )
    pairs = [(i, j) for i in range(len(projected)) for j in range(len(predicted)) if i != j]
    if not pairs:
        raise ValueError("Nearest-neighbour alignment needs at least 2 views, got 1.")
    return pairs


class NNALoss(nn.Module):
    """Nearest-neighbour alignment; see :func:`nna_loss`.

    Args:
        temperature: tau, above 0.
        chunk_size: Number of rows compared at a time; ``None`` compares all at once.
    """

    def __init__(self, temperature: float = 0.2, *, chunk_size: int | None = None) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        check_count("chunk_size", chunk_size)
        self.temperature = temperature
        self.chunk_size = chunk_size

    def forward(self, projected: Tensor, neighbours: Tensor, predicted: Tensor) -> Tensor:
        """Loss of projections and neighbours ``(G, N, D)`` and predictions ``(V, N, D)``."""
        return nna_loss(
            projected,
            neighbours,
            predicted,
            temperature=self.temperature,
            chunk_size=self.chunk_size,
        )

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"temperature={self.temperature}"
