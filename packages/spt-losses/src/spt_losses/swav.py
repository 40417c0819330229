"""SwAV: predict the cluster assignment of one view from the others.

Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", NeurIPS
2020, eq. 2 and Algorithm 1. https://arxiv.org/abs/2006.09882
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spt_losses._checks import (
    check_count,
    check_positive,
    check_rows,
    check_same_shape,
    check_width,
)
from spt_losses._cross_entropy import entropy_of_pairs, soft_cross_entropy
from spt_losses._distributed import mean_of_rows
from spt_losses._numerics import no_autocast, unit, widen
from spt_losses.sinkhorn import sinkhorn_knopp

Queues = Tensor | Sequence[Tensor]


def swapped_prediction_loss(scores: Tensor, codes: Tensor, *, temperature: float = 0.1) -> Tensor:
    """Cross-entropy of ``softmax(scores / tau)`` with codes, mean over the rows of all ranks.

    Args:
        scores: Cosines with the prototypes, shape ``(N, K)``.
        codes: Assignments, rows of sum 1, ``(N, K)``; detached here.
        temperature: tau, above 0.
    """
    check_positive("temperature", temperature)
    with no_autocast(scores):
        return mean_of_rows(soft_cross_entropy(widen(scores)[None], [widen(codes)], temperature))


def swav_loss(
    projections: Sequence[Tensor],
    prototypes: Tensor,
    *,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    sinkhorn_iterations: int = 3,
    assigned: int = 2,
    queues: Queues | None = None,
) -> Tensor:
    """Each assigned view's codes predicted from every other view.

    Args:
        projections: One ``(N, D)`` per view, those to be assigned first; normalised here.
        prototypes: Shape ``(K, D)``; their unit rows are used, the tensor stays as it is.
        temperature: tau, above 0.
        epsilon: Temperature of the Sinkhorn problem, above 0.
        sinkhorn_iterations: Its rounds.
        assigned: How many of the views get codes: the large crops.
        queues: Earlier features ``(Q, D)`` that take part in the assignment, one for all assigned
            views or one each.

    Returns:
        Scalar, mean over assigned views, over the others, and over rows. Averaged over ranks, it is
        the value over the rows of all ranks.

    Raises:
        TypeError: If an input is not of a floating-point dtype.
        ValueError: If shapes do not fit, there are fewer than two views, or a setting is out of range.

    Ranks:
        one Sinkhorn problem per assigned view over the rows (and queues) of all ranks, which may
        differ in number

    Note:
        The paper's equation adds the two terms of a pair; its algorithm and code average, as here.
        The official code makes the stored prototypes unit in place; here it happens in the graph,
        so their gradient is tangential.
    """
    _check_views(projections, prototypes, assigned)
    with no_autocast(prototypes):
        c = unit(widen(prototypes))
        scores = torch.stack([unit(widen(z)) @ c.T for z in projections])  # (V, N, K)
        codes = []
        for view in range(assigned):
            queue = _queue_of(queues, view, assigned)
            candidates = scores[view].detach()
            if queue is not None:
                check_width("queues", queue, prototypes.shape[1])
                earlier = unit(widen(queue.detach())).to(c.dtype) @ c.detach().T
                candidates = torch.cat([earlier, candidates])
            balanced = sinkhorn_knopp(candidates, epsilon, None, sinkhorn_iterations)
            codes.append(balanced[len(balanced) - scores.shape[1] :])
        rows = entropy_of_pairs(scores, codes, temperature, overwrite=True)  # (N,)
        return mean_of_rows(rows) / (assigned * (len(scores) - 1))


def _check_views(projections: Sequence[Tensor], prototypes: Tensor, assigned: int) -> None:
    if len(projections) < 2 or not 1 <= assigned <= len(projections):
        raise ValueError(
            "SwAV needs at least 2 views and 1 <= `assigned` <= views, got "
            f"{len(projections)} views and {assigned}."
        )
    check_rows("prototypes", prototypes)
    for index, z in enumerate(projections):
        check_rows(f"projections[{index}]", z)
        check_width(f"projections[{index}]", z, prototypes.shape[1])
    check_same_shape(**{f"projections[{i}]": z for i, z in enumerate(projections)})


def _queue_of(queues: Queues | None, view: int, assigned: int) -> Tensor | None:
    if queues is None or isinstance(queues, Tensor):
        return queues
    if len(queues) != assigned:
        raise ValueError(
            f"Give one queue, or one per assigned view ({assigned}), got {len(queues)}."
        )
    return queues[view]


class SwAVLoss(nn.Module):
    """SwAV's objective; see :func:`swav_loss`.

    Args:
        temperature: tau, above 0.
        sinkhorn_iterations: Rounds of the Sinkhorn problem.
        epsilon: Its temperature, above 0.

    Example:
        >>> loss, prototypes = SwAVLoss(), nn.Linear(8, 16, bias=False)
        >>> loss(torch.randn(4, 8), torch.randn(4, 8), prototypes).shape
        torch.Size([])
    """

    def __init__(
        self, temperature: float = 0.1, sinkhorn_iterations: int = 3, epsilon: float = 0.05
    ) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        check_positive("epsilon", epsilon)
        check_count("sinkhorn_iterations", sinkhorn_iterations)
        self.temperature = temperature
        self.sinkhorn_iterations = sinkhorn_iterations
        self.epsilon = epsilon

    def forward(
        self,
        proj1: Tensor,
        proj2: Tensor,
        prototypes: nn.Linear | Tensor,
        queue_feats: Queues | None = None,
        crops: Sequence[Tensor] = (),
    ) -> Tensor:
        """Loss of two views ``(N, D)`` and of smaller crops, which only predict.

        Args:
            proj1: Projections of the first large crop.
            proj2: Projections of the second.
            prototypes: A linear layer without bias, or its weight ``(K, D)``.
            queue_feats: Earlier features ``(Q, D)``, shared or one per large crop.
            crops: Projections of the small crops.
        """
        weight = prototypes.weight if isinstance(prototypes, nn.Linear) else prototypes
        return swav_loss(
            [proj1, proj2, *crops],
            weight,
            temperature=self.temperature,
            epsilon=self.epsilon,
            sinkhorn_iterations=self.sinkhorn_iterations,
            queues=queue_feats,
        )

    def sinkhorn(self, scores: Tensor) -> Tensor:
        """Codes of scores ``(N, K)``."""
        return sinkhorn_knopp(scores, self.epsilon, None, self.sinkhorn_iterations)

    def swapped_prediction(self, scores: Tensor, q: Tensor) -> Tensor:
        """Cross-entropy of scores ``(N, K)`` with codes ``(N, K)``."""
        return swapped_prediction_loss(scores, q, temperature=self.temperature)

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return (
            f"temperature={self.temperature}, sinkhorn_iterations={self.sinkhorn_iterations}, "
            f"epsilon={self.epsilon}"
        )
