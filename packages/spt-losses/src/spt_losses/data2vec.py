"""data2vec: regress the teacher's averaged block outputs at masked places.

Baevski et al., "data2vec: A General Framework for Self-supervised Learning in Speech, Vision and
Language", ICML 2022, eq. 4. https://arxiv.org/abs/2202.03555
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spt_losses._checks import check_count, check_dims, check_positive, check_rows, check_same_shape
from spt_losses._distributed import mean_of_rows
from spt_losses._numerics import no_autocast, widen


@torch.no_grad()
def data2vec_targets(
    block_outputs: Sequence[Tensor],
    *,
    top_k: int = 6,
    block_norm: Literal["layer", "instance"] | None = "layer",
    final_norm: bool = True,
) -> Tensor:
    """Mean of the last blocks' outputs, normalised block by block and once more.

    Args:
        block_outputs: The teacher's, first block first, each ``(N, T, D)`` without class token.
        top_k: How many of the last blocks count.
        block_norm: Norm of each block's output: ``"layer"`` over the width, as the published vision
            models; ``"instance"`` over the tokens; ``None`` as the port in fairseq.
        final_norm: Whether a layer norm follows the mean.

    Returns:
        Shape ``(N, T, D)``, float32 or wider.

    Raises:
        TypeError: If an output is not of a floating-point dtype.
        ValueError: If shapes differ, there are fewer than ``top_k`` blocks, or a setting is unknown.

    Example:
        >>> data2vec_targets([torch.randn(2, 5, 8)] * 3, top_k=2).shape
        torch.Size([2, 5, 8])
    """
    check_count("top_k", top_k)
    if len(block_outputs) < top_k:
        raise ValueError(f"`top_k` {top_k} exceeds the number of blocks, {len(block_outputs)}.")
    if block_norm not in ("layer", "instance", None):
        raise ValueError(f"`block_norm` must be 'layer', 'instance' or None, got {block_norm!r}.")
    last = block_outputs[-top_k:]
    check_same_shape(**{f"block_outputs[{i}]": x for i, x in enumerate(last)})
    total = None
    for i, x in enumerate(last):
        check_dims(f"block_outputs[{i}]", x, "NTD")
        with no_autocast(x):
            y = widen(x)
            if block_norm == "layer":
                y = F.layer_norm(y, y.shape[-1:])
            elif block_norm == "instance":
                y = F.instance_norm(y.mT).mT
            total = y if total is None else total + y
    assert total is not None
    mean = total / top_k
    return F.layer_norm(mean, mean.shape[-1:]) if final_norm else mean


def data2vec_loss(pred: Tensor, target: Tensor, *, beta: float = 2.0) -> Tensor:
    """Smooth L1 error, mean over rows and width.

    Args:
        pred: At the masked places of all images, shape ``(M, D)``.
        target: At the same places, ``(M, D)``; detached here.
        beta: Where the error turns from squared to absolute, above 0.

    Returns:
        Scalar. Averaged over ranks, it is the mean over the rows of all ranks.

    Raises:
        TypeError: If an input is not of a floating-point dtype.
        ValueError: If the shapes differ or ``beta`` is not above 0.

    Ranks:
        mean over the masked places of all ranks, which may differ in number

    Note:
        The published vision models take this mean. The port in fairseq sums over the width and
        divides by its root, which is ``sqrt(D)`` times as much.

    Example:
        >>> data2vec_loss(torch.zeros(3, 4), torch.ones(3, 4)).item()  # 1 / (2 beta)
        0.25
    """
    check_same_shape(pred=pred, target=target)
    check_rows("pred", pred)
    check_rows("target", target)
    check_positive("beta", beta)
    with no_autocast(pred):
        x, y = widen(pred), widen(target.detach())
        return mean_of_rows(F.smooth_l1_loss(x, y.to(x.dtype), reduction="none", beta=beta).mean(1))


class Data2VecLoss(nn.Module):
    """data2vec's error; see :func:`data2vec_loss` and :func:`data2vec_targets`.

    Args:
        beta: Where the error turns from squared to absolute, above 0.
    """

    def __init__(self, beta: float = 2.0) -> None:
        super().__init__()
        check_positive("beta", beta)
        self.beta = beta

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Loss of predictions ``(M, D)`` and targets ``(M, D)``."""
        return data2vec_loss(pred, target, beta=self.beta)

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"beta={self.beta}"
