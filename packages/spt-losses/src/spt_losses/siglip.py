"""SigLIP: every pair of the batch is a binary question.

Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023, eq. 2 and Algorithm 1.
https://arxiv.org/abs/2303.15343
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from spt_losses._checks import check_paired
from spt_losses._distributed import gather_rows, row_counts, world_size
from spt_losses._numerics import no_autocast, unit, widen


def siglip_loss(
    feats_i: Tensor,
    feats_j: Tensor,
    *,
    logit_scale: Tensor | float = 10.0,
    logit_bias: Tensor | float = -10.0,
) -> Tensor:
    """Sum over all pairs of ``-log sigmoid(+-(scale * cosine + bias))``, over ``N``.

    Args:
        feats_i: Features of the first kind, shape ``(N, D)``; normalised here.
        feats_j: Features of the second kind, shape ``(N, D)``; row ``n`` belongs to
            ``feats_i[n]``, all other pairs are negatives.
        logit_scale: t in the paper; a scalar, learnable in the paper, 10 at the start.
        logit_bias: b in the paper; a scalar, learnable in the paper, -10 at the start.

    Returns:
        Scalar. Averaged over ranks, it is the sum over the pairs of all ranks over their rows.

    Raises:
        TypeError: If a side is not of a floating-point dtype.
        ValueError: If the shapes differ or are not ``(N, D)``.

    Ranks:
        negatives of all ranks; batches may differ in size

    Example:
        >>> import torch
        >>> x = torch.eye(2)
        >>> loss = siglip_loss(x, x, logit_scale=1.0, logit_bias=0.0)
        >>> round(loss.item(), 4)  # log(1 + 1/e) + log(2)
        1.0064
    """
    check_paired(feats_i, feats_j, names=("feats_i", "feats_j"))
    with no_autocast(feats_i):
        x, y = unit(widen(feats_i)), unit(widen(feats_j))
        counts = row_counts(x)
        logits = x @ gather_rows(y, counts).T * logit_scale + logit_bias  # (N, M)
        own = (x * y).sum(1) * logit_scale + logit_bias
        # as negatives -log sigmoid(-s) = softplus(s); for positives softplus(-s) = softplus(s) - s
        total = F.softplus(logits).sum() - own.sum()
        return total * world_size() / sum(counts)


class SigLIPLoss(nn.Module):
    """Pairwise sigmoid loss of SigLIP; see :func:`siglip_loss`.

    Args:
        logit_scale: Multiplier of the similarities when none is given in the call.
        logit_bias: Bias of the logits when none is given in the call.
    """

    def __init__(self, logit_scale: float = 10.0, logit_bias: float = -10.0) -> None:
        super().__init__()
        self.logit_scale = logit_scale
        self.logit_bias = logit_bias

    def forward(
        self,
        feats_i: Tensor,
        feats_j: Tensor,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Tensor:
        """Loss of paired features ``(N, D)``."""
        return siglip_loss(
            feats_i,
            feats_j,
            logit_scale=self.logit_scale if logit_scale is None else logit_scale,
            logit_bias=self.logit_bias if logit_bias is None else logit_bias,
        )

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"logit_scale={self.logit_scale}, logit_bias={self.logit_bias}"
