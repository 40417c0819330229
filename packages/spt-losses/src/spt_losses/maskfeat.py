"""MaskFeat: predict the histograms of oriented gradients of masked patches.

Wei et al., "Masked Feature Prediction for Self-Supervised Visual Pre-Training", CVPR 2022,
section 3.2. https://arxiv.org/abs/2112.09133
"""

from __future__ import annotations

from torch import Tensor, nn

from spt_losses._checks import check_count, check_dims, check_same_shape
from spt_losses._masked import masked_mean
from spt_losses._numerics import no_autocast, widen
from spt_losses.hog import hog


def hog_targets(
    images: Tensor,
    patch_size: int = 16,
    *,
    bins: int = 9,
    cell: int = 8,
    window: int | None = None,
) -> Tensor:
    """Histograms of the cells of each patch, in the official order.

    Args:
        images: Shape ``(N, C, H, W)``.
        patch_size: Side of a patch, a multiple of ``cell`` that divides H and W.
        bins: See :func:`hog`.
        cell: See :func:`hog`.
        window: See :func:`hog`.

    Returns:
        Shape ``(N, L, C * bins * k * k)`` with k cells along a patch; within a patch ordered by
        channel, bin, row of cells, column of cells.

    Raises:
        TypeError: If ``images`` is not of a floating-point dtype.
        ValueError: If a side does not divide.

    Example:
        >>> import torch
        >>> hog_targets(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 16, 108])
    """
    check_count("patch_size", patch_size)
    if patch_size % cell or any(side % patch_size for side in images.shape[2:]):
        raise ValueError(
            f"`patch_size` {patch_size} must be a multiple of `cell` {cell} and divide the sides "
            f"{tuple(images.shape[2:])}."
        )
    features = hog(images, bins=bins, cell=cell, window=window)
    n, c, b, h, w = features.shape
    k = patch_size // cell
    parts = features.view(n, c, b, h // k, k, w // k, k)
    return parts.permute(0, 3, 5, 1, 2, 4, 6).reshape(n, (h // k) * (w // k), c * b * k * k)


def maskfeat_loss(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over the values of masked patches.

    Args:
        pred: Shape ``(N, L, P)``.
        target: As of :func:`hog_targets`, ``(N, L, P)``; detached here.
        mask: 1 (or True) where masked, shape ``(N, L)``.

    Returns:
        Scalar. Averaged over ranks, it is the mean over the masked patches of all ranks; 0 if there
        are none.

    Raises:
        TypeError: If an input is not of a floating-point dtype.
        ValueError: If the shapes do not fit.

    Ranks:
        mean over the masked patches of all ranks, which may differ in number
    """
    check_dims("pred", pred, "NLP")
    check_dims("target", target, "NLP")
    check_same_shape(pred=pred, target=target)
    with no_autocast(pred):
        return masked_mean((widen(pred) - widen(target.detach())).square().mean(-1), mask)


class MaskFeatLoss(nn.Module):
    """MaskFeat's error against the histograms of the images; see :func:`maskfeat_loss`.

    Args:
        patch_size: Side of a patch.
        bins: Directions of a histogram.
        cell: Side of a cell; it divides ``patch_size``.
        window: Side of the Gaussian window, if any.
    """

    def __init__(
        self, patch_size: int = 16, bins: int = 9, cell: int = 8, window: int | None = None
    ) -> None:
        super().__init__()
        for name, value in (("patch_size", patch_size), ("bins", bins), ("cell", cell)):
            check_count(name, value)
        check_count("window", window)
        self.patch_size = patch_size
        self.bins = bins
        self.cell = cell
        self.window = window

    def targets(self, images: Tensor) -> Tensor:
        """Targets ``(N, L, P)`` of images ``(N, C, H, W)``."""
        return hog_targets(
            images, self.patch_size, bins=self.bins, cell=self.cell, window=self.window
        )

    def forward(self, pred: Tensor, images: Tensor, mask: Tensor) -> Tensor:
        """Loss of predictions ``(N, L, P)`` for images ``(N, C, H, W)`` under ``mask`` ``(N, L)``."""
        return maskfeat_loss(pred, self.targets(images), mask)

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"patch_size={self.patch_size}, bins={self.bins}, cell={self.cell}"
