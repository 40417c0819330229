"""I-JEPA: predict the teacher's normalised features of target blocks.

Assran et al., "Self-Supervised Learning from Images with a Joint-Embedding Predictive
Architecture", CVPR 2023, section 3. https://arxiv.org/abs/2301.08243
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spt_losses._checks import check_dims, check_positive, check_same_shape
from spt_losses._distributed import mean_of_rows
from spt_losses._numerics import no_autocast, widen


@torch.no_grad()
def ijepa_targets(features: Tensor, masks: Tensor) -> Tensor:
    """Tokens of each target block, after a layer norm without parameters over the width.

    Args:
        features: The teacher's tokens of the whole image, shape ``(N, T, D)``.
        masks: Indices of the tokens of each block, int64 of shape ``(blocks, N, M)``.

    Returns:
        Shape ``(blocks * N, M, D)``, block by block as the official code; float32 or wider.

    Raises:
        TypeError: If ``features`` is not of a floating-point dtype.
        ValueError: If the shapes do not fit.
    """
    check_dims("features", features, "NTD")
    if masks.ndim != 3 or masks.shape[1] != len(features):
        raise ValueError(
            f"`masks` must have shape (blocks, {len(features)}, M), got {tuple(masks.shape)}."
        )
    with no_autocast(features):
        x = F.layer_norm(widen(features), features.shape[-1:])
        index = masks.long().unsqueeze(-1).expand(*masks.shape, x.shape[-1])
        return x.expand(len(masks), *x.shape).gather(2, index).flatten(0, 1)


def ijepa_loss(pred: Tensor, target: Tensor, *, beta: float = 1.0) -> Tensor:
    """Smooth L1 error, mean over everything.

    Args:
        pred: Predicted tokens of the target blocks, shape ``(N, M, D)``; blocks may be stacked
            along ``N``.
        target: As of :func:`ijepa_targets`, ``(N, M, D)``; detached here.
        beta: Where the error turns from squared to absolute, above 0.

    Returns:
        Scalar. Averaged over ranks, it is the mean over the blocks of all ranks.

    Raises:
        TypeError: If an input is not of a floating-point dtype.
        ValueError: If the shapes differ or ``beta`` is not above 0.

    Ranks:
        mean over the blocks of all ranks, which may differ in number but not in size

    Note:
        The paper writes a squared L2 distance; the official code has smooth L1, as here.

    Example:
        >>> ijepa_loss(torch.zeros(2, 3, 4), torch.ones(2, 3, 4)).item()
        0.5
    """
    check_same_shape(pred=pred, target=target)
    check_dims("pred", pred, "NMD")
    check_dims("target", target, "NMD")
    check_positive("beta", beta)
    with no_autocast(pred):
        x, y = widen(pred), widen(target.detach())
        error = F.smooth_l1_loss(x, y.to(x.dtype), reduction="none", beta=beta)
        return mean_of_rows(error.mean((1, 2)))


class IJEPALoss(nn.Module):
    """I-JEPA's error; see :func:`ijepa_loss`.

    Args:
        beta: Where the error turns from squared to absolute, above 0.
    """

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        check_positive("beta", beta)
        self.beta = beta

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Loss of predictions ``(N, M, D)`` and targets ``(N, M, D)``."""
        return ijepa_loss(pred, target, beta=self.beta)

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"beta={self.beta}"
