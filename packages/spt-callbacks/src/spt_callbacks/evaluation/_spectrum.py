"""Spectra of embeddings, in float64, without bringing the rows of all ranks together."""

from __future__ import annotations

import torch
from torch import Tensor

from spt_callbacks.distributed import sum_over_ranks

CHUNK = 4096


def check_embeddings(embeddings: Tensor) -> None:
    """Refuse anything but ``(N, D)``.

    Raises:
        ValueError: If the shape is another.
    """
    if embeddings.ndim != 2:
        raise ValueError(f"`embeddings` must have shape (N, D), got {tuple(embeddings.shape)}.")


def moments(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count, sum ``(D,)`` and Gram matrix ``(D, D)`` of the rows ``(N, D)`` of all ranks, float64."""
    width = rows.shape[1]
    flat = rows.new_zeros(1 + width + width * width, dtype=torch.float64)
    count, total, gram = flat[:1], flat[1 : 1 + width], flat[1 + width :].view(width, width)
    count += len(rows)
    for chunk in rows.split(CHUNK):
        wide = chunk.double()
        total += wide.sum(0)
        gram.addmm_(wide.T, wide)
    sum_over_ranks(flat)
    return count[0], total, gram


def singular_values(count: Tensor, gram: Tensor) -> Tensor:
    """The min(N, D) singular values of rows with this Gram matrix, descending."""
    squares = torch.linalg.eigvalsh(gram).flip(0).clamp(min=0)
    return squares[: int(count.clamp(max=len(gram)))].sqrt()


def entropy_of(spectrum: Tensor, epsilon: float = 0.0) -> Tensor:
    """Entropy of the shares of a spectrum, each plus ``epsilon``; 0 log 0 is 0."""
    total = spectrum.sum().clamp(min=torch.finfo(spectrum.dtype).tiny)
    return torch.special.entr(spectrum / total + epsilon).sum()
