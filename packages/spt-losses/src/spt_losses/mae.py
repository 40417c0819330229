"""MAE: mean squared error of the pixels that were masked.

He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, section 3.
https://arxiv.org/abs/2111.06377
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spt_losses._checks import check_count, check_dims, check_same_shape
from spt_losses._distributed import world_size
from spt_losses._masked import masked_mean
from spt_losses._numerics import cosine, no_autocast, widen

PatchLoss = Callable[[Tensor, Tensor], Tensor]
VARIANCE_EPS = 1e-6


def patch_pixels(images: Tensor, patch_size: int) -> Tensor:
    """Images ``(N, C, H, W)`` as patches ``(N, L, p * p * C)``, channel fastest, as the official code.

    Raises:
        ValueError: If a side does not divide by ``patch_size``.

    Example:
        >>> patch_pixels(torch.zeros(2, 3, 8, 8), 4).shape
        torch.Size([2, 4, 48])
    """
    n, c, h, w = images.shape
    if h % patch_size or w % patch_size:
        raise ValueError(f"`patch_size` {patch_size} must divide the images' sides {(h, w)}.")
    x = images.reshape(n, c, h // patch_size, patch_size, w // patch_size, patch_size)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(n, -1, patch_size**2 * c)


def standardize_patches(target: Tensor) -> Tensor:
    """Each patch of ``(N, L, P)`` minus its mean, over the root of its unbiased variance + 1e-6."""
    variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
    return (target - mean) / (variance + VARIANCE_EPS).sqrt()


def mae(target: Tensor, pred: Tensor, mask: Tensor, norm_pix_loss: bool = False) -> Tensor:
    """Mean over masked patches of the mean squared error.

    Args:
        target: Pixels of the patches, shape ``(N, L, P)``.
        pred: Predictions, ``(N, L, P)``.
        mask: 1 (or True) where masked, shape ``(N, L)``.
        norm_pix_loss: Standardise each patch of the target first, in float32 or wider.

    Returns:
        Scalar. Averaged over ranks, it is the mean over the masked patches of all ranks; 0 if there
        are none.

    Raises:
        TypeError: If pixels or predictions are not of a floating-point dtype.
        ValueError: If the shapes do not fit.

    Ranks:
        mean over the masked patches of all ranks, which may differ in number

    Example:
        >>> mae(torch.zeros(1, 2, 4), torch.ones(1, 2, 4), torch.tensor([[1.0, 0.0]])).item()
        1.0
    """
    check_dims("target", target, "NLP")
    check_dims("pred", pred, "NLP")
    check_same_shape(target=target, pred=pred)
    with no_autocast(pred):
        goal = widen(target.detach())
        goal = standardize_patches(goal) if norm_pix_loss else goal
        error = (widen(pred) - goal).square().mean(-1)
        return masked_mean(error, mask)


def _check_values(**tensors: Tensor) -> None:
    for name, x in tensors.items():
        if not x.isfinite().all():
            raise ValueError(f"`{name}` holds values that are not finite.")


class MAELoss(nn.Module):
    """Reconstruction error of an image's patches.

    Args:
        patch_size: Side of a patch.
        loss_type: Error of a patch: ``"mse"``, ``"cosine"`` (1 - cos), ``"smooth_l1"``, or ``"custom"``
            (see :meth:`register_custom_loss`).
        mask_only: Count masked patches alone; else all.
        patch_normalize: Standardise each patch of the target, as the paper's best results.
        reduction: ``"mean"`` or ``"sum"`` over the patches that count.

    Raises:
        ValueError: If a setting is unknown.

    Example:
        >>> loss = MAELoss(patch_size=4)
        >>> loss(torch.zeros(2, 4, 48), torch.rand(2, 3, 8, 8), torch.ones(2, 4)).shape
        torch.Size([])
    """

    def __init__(
        self,
        patch_size: int = 16,
        loss_type: Literal["mse", "cosine", "smooth_l1", "custom"] = "mse",
        mask_only: bool = True,
        patch_normalize: bool = True,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__()
        check_count("patch_size", patch_size)
        known: dict[str, PatchLoss | None] = {
            "mse": lambda pred, goal: (pred - goal).square().mean(-1),
            "cosine": lambda pred, goal: 1 - cosine(pred, goal),
            "smooth_l1": lambda pred, goal: F.smooth_l1_loss(pred, goal, reduction="none").mean(-1),
            "custom": None,
        }
        if loss_type not in known:
            raise ValueError(f"`loss_type` must be one of {list(known)}, got {loss_type!r}.")
        if reduction not in ("mean", "sum"):
            raise ValueError(f"`reduction` must be 'mean' or 'sum', got {reduction!r}.")
        self.patch_size = patch_size
        self.loss_type = loss_type
        self.mask_only = mask_only
        self.patch_normalize = patch_normalize
        self.reduction = reduction
        self._patch_loss = known[loss_type]

    def register_custom_loss(self, fn: PatchLoss) -> None:
        """Set the error of ``loss_type="custom"``: predictions and targets ``(N, T, P)`` to ``(N, T)``."""
        self._patch_loss = fn

    def forward(
        self,
        pred: Tensor,
        imgs: Tensor,
        mask: Tensor,
        debug: bool = False,
        *,
        places: Tensor | None = None,
    ) -> Tensor:
        """Loss of predictions.

        Args:
            pred: Shape ``(N, T, p * p * C)``, channel fastest within a patch.
            imgs: Shape ``(N, C, H, W)``.
            mask: 1 (or True) where masked, shape ``(N, T)``.
            debug: Look at the values too, which waits for the device.
            places: Which patches of the image the T predictions are for, shape ``(N, T)``; all of them
                in their order if left out.

        Raises:
            TypeError: If an input is not of a floating-point dtype.
            ValueError: If the shapes do not fit, or no custom error was registered; with ``debug``
                also if a value is not finite or nothing is masked.
        """
        check_dims("pred", pred, "NTP")
        check_dims("imgs", imgs, "NCHW")
        if self._patch_loss is None:
            raise ValueError("`loss_type='custom'` needs `register_custom_loss(fn)` first.")
        if debug:
            _check_values(pred=pred, imgs=imgs)
            if self.mask_only and not mask.any():
                raise ValueError("`mask` hides no patch.")
        with no_autocast(pred):
            goal = patch_pixels(widen(imgs.detach()), self.patch_size)
            if places is not None:
                goal = goal.gather(1, places.unsqueeze(2).expand(-1, -1, goal.shape[2]))
            check_same_shape(pred=pred, **{"the images' patches": goal})
            goal = standardize_patches(goal) if self.patch_normalize else goal
            error = self._patch_loss(widen(pred), goal)
            counted = mask if self.mask_only else torch.ones_like(error)
            if self.reduction == "mean":
                return masked_mean(error, counted)
            return (error * counted.to(error.dtype)).sum() * world_size()

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return (
            f"patch_size={self.patch_size}, loss_type={self.loss_type!r}, "
            f"mask_only={self.mask_only}, patch_normalize={self.patch_normalize}, "
            f"reduction={self.reduction!r}"
        )
