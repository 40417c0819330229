"""AIM: each output predicts the pixels of the next patch.

El-Nouby et al., "Scalable Pre-training of Large Autoregressive Image Models", ICML 2024, eq. 2.
https://arxiv.org/abs/2401.08541
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spt_losses._checks import check_count, check_dims, check_same_shape
from spt_losses._masked import masked_mean
from spt_losses._numerics import no_autocast, widen
from spt_losses.mae import patch_pixels, standardize_patches


def aim_loss(
    pred: Tensor,
    target: Tensor,
    prefix_length: Tensor | None = None,
    *,
    norm_pix_loss: bool = True,
) -> Tensor:
    """Mean squared error between the output at a patch and the next patch.

    Args:
        pred: Outputs of a causal model, shape ``(N, L, P)``; the last one predicts nothing.
        target: Pixels of the patches, ``(N, L, P)``, as of :func:`patch_pixels`; detached here.
        prefix_length: Patches seen together at the start, int64 of shape ``(N,)``, at least 1; only
            patches after the prefix count. ``None`` stands for 1.
        norm_pix_loss: Standardise each patch of the target first, in float32 or wider.

    Returns:
        Scalar. Averaged over ranks, it is the mean over the predicted patches of all ranks.

    Raises:
        TypeError: If an input is of the wrong dtype.
        ValueError: If the shapes do not fit or ``L < 2``.

    Ranks:
        mean over the predicted patches of all ranks, which may differ in number

    Note:
        No public code fixes the reduction; the mean over all predicted patches is taken.

    Example:
        >>> target = torch.zeros(1, 3, 4)
        >>> aim_loss(torch.ones(1, 3, 4), target, torch.tensor([2])).item()
        1.0
    """
    check_dims("pred", pred, "NLP")
    check_dims("target", target, "NLP")
    check_same_shape(pred=pred, target=target)
    n, length, _ = pred.shape
    if length < 2:
        raise ValueError(f"`pred` must hold at least 2 patches, got shape {tuple(pred.shape)}.")
    place = torch.arange(1, length, device=pred.device)  # of the patch that is predicted
    if prefix_length is None:
        prefix_length = place.new_ones(n)
    if prefix_length.shape != (n,) or prefix_length.is_floating_point():
        raise ValueError(
            f"`prefix_length` must hold {n} integers, got shape {tuple(prefix_length.shape)} of "
            f"{prefix_length.dtype}."
        )
    with no_autocast(pred):
        goal = widen(target.detach())
        goal = standardize_patches(goal) if norm_pix_loss else goal
        error = (widen(pred)[:, :-1] - goal[:, 1:]).square().mean(-1)  # (N, L - 1)
        return masked_mean(error, place >= prefix_length[:, None])


class AIMLoss(nn.Module):
    """AIM's objective on images; see :func:`aim_loss`.

    Args:
        patch_size: Side of a patch.
        patch_normalize: Standardise each patch of the target.
    """

    def __init__(self, patch_size: int = 16, patch_normalize: bool = True) -> None:
        super().__init__()
        check_count("patch_size", patch_size)
        self.patch_size = patch_size
        self.patch_normalize = patch_normalize

    def forward(self, pred: Tensor, imgs: Tensor, prefix_length: Tensor | None = None) -> Tensor:
        """Loss of outputs ``(N, L, P)`` for images ``(N, C, H, W)``."""
        check_dims("imgs", imgs, "NCHW")
        target = patch_pixels(widen(imgs.detach()), self.patch_size)
        return aim_loss(pred, target, prefix_length, norm_pix_loss=self.patch_normalize)

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"patch_size={self.patch_size}, patch_normalize={self.patch_normalize}"
