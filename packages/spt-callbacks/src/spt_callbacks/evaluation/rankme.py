"""RankMe: the effective rank of the embeddings.

Garrido et al., "RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised
Representations by Their Rank", ICML 2023, eq. 1. https://arxiv.org/abs/2210.02885
"""

from __future__ import annotations

import lightning as pl
import torch
from torch import Tensor

from spt_callbacks.evaluation._measure import QueueMeasure
from spt_callbacks.evaluation._spectrum import (
    check_embeddings,
    entropy_of,
    moments,
    singular_values,
)
from spt_callbacks.keys import Key


def rankme_epsilon(dtype: torch.dtype) -> float:
    """The constant of eq. 1 for embeddings of this type.

    The paper's 1e-7 is the resolution of float32; float64 has its own.
    """
    return torch.finfo(dtype).eps if dtype == torch.float64 else 1e-7


def rankme(embeddings: Tensor, *, epsilon: float | None = None) -> Tensor:
    """Exponential of the entropy of the normalised singular values.

    Args:
        embeddings: ``(N, D)``, not centred; computed in float64.
        epsilon: Added to each share, as in eq. 1; that of :func:`rankme_epsilon` by default.

    Returns:
        Scalar between 1 (all rows parallel) and min(N, D).

    Raises:
        ValueError: If the embeddings are not ``(N, D)``.

    Example:
        >>> round(rankme(torch.eye(4)).item(), 3)
        4.0
    """
    check_embeddings(embeddings)
    singular = torch.linalg.svdvals(embeddings.double())
    return torch.exp(
        entropy_of(singular, rankme_epsilon(embeddings.dtype) if epsilon is None else epsilon)
    )


class RankMe(QueueMeasure):
    """Log the effective rank of the newest training embeddings of all ranks at each validation.

    A falling value warns of dimensional collapse. Logs ``{name}``, the same on all ranks, and
    ``test/{name}`` in testing; with ``verbose`` also ``{name}/entropy``,
    ``{name}/top_singular_value`` and ``{name}/condition_number``. The ranks add up their float64
    Gram matrices; rows do not travel.

    Args:
        name: Key in the logs.
        target: Key of the embeddings ``(N, D)``.
        queue_length: Embeddings kept on each rank; the paper uses 25,600 in all.
        target_shape: Shape of an embedding, checked if given; several dimensions are flattened.
        verbose: Log the details too.
        epsilon: As in eq. 1; the paper's by default.
        save_queues: Keep the embeddings in checkpoints.

    Raises:
        ValueError: At the first validation, if the embeddings have another width.
    """

    def __init__(
        self,
        name: str = "rankme",
        target: Key = "embedding",
        queue_length: int = 8192,
        target_shape: int | tuple[int, ...] | None = None,
        verbose: bool | None = None,
        *,
        epsilon: float | None = None,
        save_queues: bool = False,
    ) -> None:
        super().__init__(name, (target,), queue_length, target_shape, verbose, save_queues)
        self.epsilon = epsilon

    def measure(self, trainer: pl.Trainer) -> dict[str, Tensor] | None:
        """RankMe, and what it is made of."""
        rows = self.own_rows(trainer)
        if rows is None:
            return None
        count, _, gram = moments(rows)
        singular = singular_values(count, gram)
        epsilon = rankme_epsilon(rows.dtype) if self.epsilon is None else self.epsilon
        entropy = entropy_of(singular, epsilon)
        return {
            "": entropy.exp(),
            "entropy": entropy,
            "top_singular_value": singular[0],
            "condition_number": singular[0] / singular[-1].clamp(min=1e-10),
        }
