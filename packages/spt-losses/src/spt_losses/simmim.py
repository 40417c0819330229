"""SimMIM: absolute error of the pixels that were masked.

Xie et al., "SimMIM: A Simple Framework for Masked Image Modeling", CVPR 2022, eq. 1.
https://arxiv.org/abs/2111.09886
"""

from __future__ import annotations

from torch import Tensor, nn

from spt_losses._checks import check_dims, check_same_shape
from spt_losses._masked import masked_mean
from spt_losses._numerics import no_autocast, widen


def simmim_loss(pred: Tensor, images: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute error over masked pixels and channels.

    Args:
        pred: Reconstructed images, shape ``(N, C, H, W)``.
        images: Shape ``(N, C, H, W)``; detached here.
        mask: 1 (or True) where masked, on the pixels ``(N, H, W)`` or on a grid of patches
            ``(N, h, w)`` whose sides divide those of the images.

    Returns:
        Scalar. Averaged over ranks, it is the mean over the masked pixels of all ranks; 0 if there
        are none.

    Raises:
        TypeError: If an image is not of a floating-point dtype.
        ValueError: If the shapes do not fit.

    Ranks:
        mean over the masked pixels of all ranks, which may differ in number

    Example:
        >>> import torch
        >>> mask = torch.tensor([[[1, 0], [0, 0]]])  # one of four patches
        >>> simmim_loss(torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8), mask).item()
        1.0
    """
    check_dims("pred", pred, "NCHW")
    check_dims("images", images, "NCHW")
    check_same_shape(pred=pred, images=images)
    n, _, height, width = pred.shape
    if mask.ndim != 3 or len(mask) != n or height % mask.shape[1] or width % mask.shape[2]:
        raise ValueError(
            f"`mask` must have shape ({n}, h, w) with sides that divide {(height, width)}, got "
            f"{tuple(mask.shape)}."
        )
    with no_autocast(pred):
        error = (widen(pred) - widen(images.detach())).abs().mean(1)  # (N, H, W)
        pixels = mask.repeat_interleave(height // mask.shape[1], dim=1)
        return masked_mean(error, pixels.repeat_interleave(width // mask.shape[2], dim=2))


class SimMIMLoss(nn.Module):
    """SimMIM's masked absolute error; see :func:`simmim_loss`."""

    def forward(self, pred: Tensor, images: Tensor, mask: Tensor) -> Tensor:
        """Loss of images ``(N, C, H, W)`` under a mask ``(N, h, w)``."""
        return simmim_loss(pred, images, mask)
