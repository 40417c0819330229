"""Gaussian blur with one width per sample, as two matrix products."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from spt_jax.augment.geometry import choose, coins, separable


def gaussian_blur(images: jax.Array, sigma: jax.Array, kernel_size: int = 23) -> jax.Array:
    """Blur each image with its own width, borders reflected.

    Args:
        images: Float images ``(B, H, W, C)``.
        sigma: Standard deviations in pixels, ``(B,)``.
        kernel_size: Taps, odd.

    Raises:
        ValueError: If the kernel is even, or reaches further than the reflected image.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"`kernel_size` must be odd and positive, got {kernel_size}.")
    if kernel_size // 2 >= min(images.shape[1:3]):
        raise ValueError(
            f"A blur of {kernel_size} taps needs images of more than {kernel_size // 2} pixels a side, "
            f"got {images.shape[1:3]}. Use a smaller `kernel_size`."
        )
    offsets = jnp.arange(kernel_size) - kernel_size // 2
    taps = jnp.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    taps = taps / taps.sum(1, keepdims=True)  # (B, taps)
    rows, columns = (
        jnp.einsum("bt,tij->bij", taps, reflected_taps(side, kernel_size))
        for side in images.shape[1:3]
    )
    return separable(images, rows, columns)


def reflected_taps(side: int, kernel_size: int) -> np.ndarray:
    """Which pixel each tap reads at each place, 0 or 1, ``(taps, side, side)``."""
    read = np.zeros((kernel_size, side, side), np.float32)
    for tap in range(kernel_size):
        place = np.abs(np.arange(side) + tap - kernel_size // 2)
        place = np.where(place >= side, 2 * side - 2 - place, place)
        read[tap, np.arange(side), place] = 1
    return read


def random_gaussian_blur(
    key: jax.Array,
    images: jax.Array,
    kernel_size: int = 23,
    sigma: tuple[float, float] = (0.1, 2.0),
    p: float = 0.5,
) -> jax.Array:
    """Blur each image with probability ``p`` by a width drawn from a range of pixels.

    Raises:
        ValueError: If the range is empty or not above 0.
    """
    if not 0 < sigma[0] <= sigma[1]:
        raise ValueError(f"`sigma` must be a range of positive numbers, got {tuple(sigma)}.")
    k_width, k_coin = jax.random.split(key)
    n = len(images)
    widths = jax.random.uniform(k_width, (n,), minval=sigma[0], maxval=sigma[1])
    return choose(coins(k_coin, n, p), gaussian_blur(images, widths, kernel_size), images)
