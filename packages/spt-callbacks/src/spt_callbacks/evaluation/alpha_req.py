"""alpha-ReQ: the decay of the spectrum of the embeddings.

Agrawal et al., "alpha-ReQ: Assessing Representation Quality in Self-Supervised Learning by measuring
eigenspectrum decay", NeurIPS 2022. The fit is that of the official code
(https://github.com/kumarkrishna/fastssl), after Stringer et al., Nature 2019.
"""

from __future__ import annotations

import lightning as pl
import torch
from torch import Tensor

from spt_callbacks.evaluation._measure import QueueMeasure
from spt_callbacks.evaluation._spectrum import check_embeddings, moments
from spt_callbacks.keys import Key


def power_law_exponent(spectrum: Tensor, ranks: tuple[int, int] = (4, 100)) -> Tensor:
    """Minus the slope of log eigenvalue over log rank, by least squares weighted with 1 / rank.

    Args:
        spectrum: Eigenvalues, descending, ``(D,)``.
        ranks: First and last rank of the fit, from 1.

    Returns:
        Scalar alpha; larger is a faster decay.

    Raises:
        ValueError: If the range holds fewer than two ranks or reaches beyond the spectrum.

    Example:
        >>> rank = torch.arange(1, 101, dtype=torch.float64)
        >>> round(power_law_exponent(rank**-1.5).item(), 6)
        1.5
    """
    first, last = ranks
    if not 1 <= first < last <= len(spectrum):
        raise ValueError(
            f"`ranks` must be two ranks of the {len(spectrum)} eigenvalues, the smaller first, got "
            f"{ranks}."
        )
    rank = torch.arange(first, last + 1, dtype=torch.float64, device=spectrum.device)
    tiny = torch.finfo(torch.float64).tiny
    y = spectrum[first - 1 : last].double().clamp(min=tiny).log()
    x, weight = rank.log(), 1 / rank
    x_mean, y_mean = ((weight * v).sum() / weight.sum() for v in (x, y))
    return -(weight * (x - x_mean) * (y - y_mean)).sum() / (weight * (x - x_mean).square()).sum()


def covariance_spectrum(embeddings: Tensor) -> Tensor:
    """Shares of the variance of the centred embeddings, descending, ``(min(N, D),)``, float64.

    Args:
        embeddings: ``(N, D)``.

    Raises:
        ValueError: If the embeddings are not ``(N, D)``.
    """
    check_embeddings(embeddings)
    wide = embeddings.double()
    square = torch.linalg.svdvals(wide - wide.mean(0)).square()
    return square / square.sum()


def alpha_req(embeddings: Tensor, *, ranks: tuple[int, int] = (4, 100)) -> Tensor:
    """The exponent of the power law of the embeddings' covariance spectrum.

    Args:
        embeddings: ``(N, D)``; centred here, computed in float64.
        ranks: First and last rank of the fit, from 1; the last is cut to min(N, D).

    Returns:
        Scalar alpha; the paper finds representations best near 1.
    """
    spectrum = covariance_spectrum(embeddings)
    return power_law_exponent(spectrum, (ranks[0], min(ranks[1], len(spectrum))))


class AlphaReQ(QueueMeasure):
    """Log alpha-ReQ of the newest training embeddings of all ranks at each validation.

    Args:
        name: Key in the logs; ``test/{name}`` in testing.
        target: Key of the embeddings.
        queue_length: Embeddings kept on each rank.
        target_shape: Shape of an embedding, checked if given.
        ranks: First and last rank of the fit, from 1; the last is cut to min(N, D). Nothing is
            logged while there are too few embeddings for a fit.
        save_queues: Keep the embeddings in checkpoints.
    """

    def __init__(
        self,
        name: str = "alpha_req",
        target: Key = "embedding",
        queue_length: int = 8192,
        target_shape: int | tuple[int, ...] | None = None,
        *,
        ranks: tuple[int, int] = (4, 100),
        save_queues: bool = False,
    ) -> None:
        super().__init__(name, (target,), queue_length, target_shape, save_queues=save_queues)
        self.ranks = ranks

    def measure(self, trainer: pl.Trainer) -> dict[str, Tensor] | None:
        """Alpha."""
        rows = self.own_rows(trainer)
        if rows is None:
            return None
        count, total, gram = moments(rows)
        terms = min(int(count), len(gram))
        if terms <= self.ranks[0]:
            return None
        centred = gram - torch.outer(total, total) / count
        spectrum = torch.linalg.eigvalsh(centred).flip(0)[:terms].clamp(min=0)
        fitted = (self.ranks[0], min(self.ranks[1], terms))
        return {"": power_law_exponent(spectrum / spectrum.sum(), fitted)}
