"""MAE: mean squared error of the pixels that were masked.

He et al., CVPR 2022, section 3 (https://arxiv.org/abs/2111.06377).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from spt_jax.losses.common import wide


def patch_pixels(images: jax.Array, patch_size: int) -> jax.Array:
    """Images ``(N, H, W, C)`` as patches ``(N, L, p * p * C)``, channel fastest, as the official code.

    Raises:
        ValueError: If a side does not divide by ``patch_size``.
    """
    n, h, w, c = images.shape
    if h % patch_size or w % patch_size:
        raise ValueError(f"`patch_size` {patch_size} must divide the images' sides {(h, w)}.")
    x = images.reshape(n, h // patch_size, patch_size, w // patch_size, patch_size, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, -1, patch_size**2 * c)


def mae_loss(
    target: jax.Array, pred: jax.Array, mask: jax.Array, *, norm_pix_loss: bool = False
) -> jax.Array:
    """Mean over masked patches of the mean squared error.

    Args:
        target: Pixels of the patches, ``(N, L, P)``.
        pred: Predictions, ``(N, L, P)``.
        mask: 1 where masked, ``(N, L)``.
        norm_pix_loss: Standardise each patch of the target first (unbiased variance + 1e-6).

    Raises:
        ValueError: If the shapes do not fit.
    """
    if target.shape != pred.shape or mask.shape != pred.shape[:2]:
        raise ValueError(
            "`target` and `pred` must have one shape (N, L, P) and `mask` (N, L), got "
            f"{target.shape}, {pred.shape} and {mask.shape}."
        )
    goal = jax.lax.stop_gradient(wide(target))
    if norm_pix_loss:
        variance = goal.var(axis=-1, ddof=1, keepdims=True)
        goal = (goal - goal.mean(-1, keepdims=True)) / jnp.sqrt(variance + 1e-6)
    error = ((wide(pred) - goal) ** 2).mean(-1)
    weight = wide(mask)
    return (error * weight).sum() / jnp.maximum(weight.sum(), 1.0)


@dataclass(frozen=True)
class MAELoss:
    """Reconstruction error of an image's masked patches; see :func:`mae_loss`.

    Attributes:
        patch_size: Side of a patch.
        norm_pix_loss: Standardise each patch of the target.
    """

    patch_size: int = 16
    norm_pix_loss: bool = True

    def __call__(self, pred: jax.Array, images: jax.Array, mask: jax.Array) -> jax.Array:
        """Loss of predictions ``(N, L, p * p * C)`` of images ``(N, H, W, C)`` where ``mask`` ``(N, L)`` is 1."""
        target = patch_pixels(wide(images), self.patch_size)
        return mae_loss(target, pred, mask, norm_pix_loss=self.norm_pix_loss)
