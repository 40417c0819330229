"""MSN: masked views are assigned to prototypes as the whole image is.

Assran et al., "Masked Siamese Networks for Label-Efficient Learning", ECCV 2022, eq. 1.
https://arxiv.org/abs/2204.07141
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from spt_losses._checks import (
    check_fraction,
    check_not_negative,
    check_positive,
    check_rows,
    check_width,
)
from spt_losses._distributed import mean_of_rows, row_counts, sum_over_ranks
from spt_losses._numerics import no_autocast, unit, widen
from spt_losses.sinkhorn import balanced


def msn_loss(
    anchors: Tensor,
    targets: Tensor,
    prototypes: Tensor,
    *,
    temperature: float = 0.1,
    sharpen: float = 0.25,
    memax_weight: float = 1.0,
    ent_weight: float = 0.0,
    label_smoothing: float = 0.0,
    sinkhorn_iterations: int = 3,
) -> Tensor:
    """Cross-entropy of the anchors' assignments with sharpened targets, and mean-entropy maximisation.

    Args:
        anchors: Of the masked views, one view after the other, shape ``(V * N, D)``.
        targets: Of the teacher's whole images, ``(N, D)``; no gradient.
        prototypes: Shape ``(K, D)``; get their gradient from the anchors alone.
        temperature: tau of the anchors, above 0.
        sharpen: T of the targets: probabilities to the power ``1 / T``, renormalised; above 0.
        memax_weight: Weight of ``log K - H(mean p)``.
        ent_weight: Weight of the anchors' mean entropy.
        label_smoothing: Share of each prototype's mass spread over all, in [0, 1].
        sinkhorn_iterations: Rounds on the sharpened targets; 0 for none.

    Returns:
        Scalar. Averaged over ranks, it is the value over the rows of all ranks.

    Raises:
        TypeError: If an input is not of a floating-point dtype.
        ValueError: If shapes do not fit or a setting is out of range.

    Ranks:
        mean assignment, Sinkhorn and mean over the rows of all ranks, which may differ in number

    Note:
        The paper subtracts the entropy; the official code adds ``log K``, which has no gradient, as
        here.
    """
    _check(anchors, targets, prototypes)
    check_positive("temperature", temperature)
    check_positive("sharpen", sharpen)
    check_not_negative(memax_weight=memax_weight, ent_weight=ent_weight)
    check_fraction(label_smoothing=label_smoothing)
    number = len(prototypes)
    with no_autocast(anchors):
        c = unit(widen(prototypes))
        log_p = _assign(anchors, c, temperature, label_smoothing)
        with torch.no_grad():
            sharp = _assign(targets, c, temperature, label_smoothing) / sharpen
            sharp = sharp.log_softmax(dim=1)
            goal = balanced(sharp, sinkhorn_iterations)
        counts = row_counts(anchors)
        views = len(anchors) // len(targets)
        loss = -mean_of_rows((goal.repeat(views, 1) * log_p).sum(1), counts)
        p = log_p.exp()
        mean_p = sum_over_ranks(p.sum(0)) / sum(counts)
        smallest = torch.finfo(mean_p.dtype).tiny  # the entropy's slope at 0 is infinite
        entropy = -(mean_p * mean_p.clamp(min=smallest).log()).sum()
        loss = loss + memax_weight * (math.log(number) - entropy)
        if ent_weight:
            loss = loss - ent_weight * mean_of_rows((p * log_p).sum(1), counts)
        return loss


def _assign(x: Tensor, prototypes: Tensor, temperature: float, smoothing: float) -> Tensor:
    """Log-probabilities of the prototypes, shape ``(N, K)``."""
    log_p = (unit(widen(x)) @ prototypes.T / temperature).log_softmax(dim=1)
    if not smoothing:
        return log_p
    # a one-hot label keeps 1 - s of its mass and spreads s over all prototypes
    return (log_p.exp() * (1 - smoothing) + smoothing / len(prototypes)).log()


def _check(anchors: Tensor, targets: Tensor, prototypes: Tensor) -> None:
    for name, x in (("anchors", anchors), ("targets", targets), ("prototypes", prototypes)):
        check_rows(name, x)
    check_width("anchors", anchors, prototypes.shape[1])
    check_width("targets", targets, prototypes.shape[1])
    if len(anchors) % len(targets):
        raise ValueError(
            "`anchors` (V * N, D) must hold whole views of the N `targets`, got "
            f"{len(anchors)} and {len(targets)} rows."
        )


class MSNLoss(nn.Module):
    """MSN's objective; see :func:`msn_loss`.

    Args:
        temperature: tau of the anchors, above 0.
        sharpen: T of the targets, above 0.
        memax_weight: Weight of the mean-entropy term.
        ent_weight: Weight of the entropy term.
        label_smoothing: Share of mass spread over all prototypes.
        sinkhorn_iterations: Rounds on the targets; 0 for none.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        sharpen: float = 0.25,
        memax_weight: float = 1.0,
        ent_weight: float = 0.0,
        label_smoothing: float = 0.0,
        sinkhorn_iterations: int = 3,
    ) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        check_positive("sharpen", sharpen)
        check_not_negative(memax_weight=memax_weight, ent_weight=ent_weight)
        check_not_negative(sinkhorn_iterations=sinkhorn_iterations)
        check_fraction(label_smoothing=label_smoothing)
        self.settings = {
            "temperature": temperature,
            "sharpen": sharpen,
            "memax_weight": memax_weight,
            "ent_weight": ent_weight,
            "label_smoothing": label_smoothing,
            "sinkhorn_iterations": sinkhorn_iterations,
        }

    def forward(self, anchors: Tensor, targets: Tensor, prototypes: Tensor) -> Tensor:
        """Loss of anchors ``(V * N, D)`` and targets ``(N, D)`` for prototypes ``(K, D)``."""
        return msn_loss(anchors, targets, prototypes, **self.settings)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return ", ".join(f"{name}={value}" for name, value in self.settings.items())
