"""Pointwise colour operations as torchvision computes them, on images in [0, 1], ``(B, H, W, C)``.

Factors are one number, or one per image ``(B,)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from spt_jax.augment.geometry import choose, coins

GREY_WEIGHTS = (0.2989, 0.587, 0.114)
"""Share of red, green and blue in a grey value (ITU-R 601-2, as torchvision rounds them)."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def to_float(images: jax.Array) -> jax.Array:
    """Images in [0, 1]: uint8 ones divided by 255, others in their floating-point type."""
    if images.dtype == jnp.uint8:
        return images.astype(jnp.float32) / 255
    return images if jnp.issubdtype(images.dtype, jnp.floating) else images.astype(jnp.float32)


def normalize(
    images: jax.Array,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> jax.Array:
    """Subtract the mean and divide by the standard deviation of each channel.

    Raises:
        ValueError: If there is another number of channels.
    """
    if images.shape[-1] != len(mean) or len(mean) != len(std):
        raise ValueError(
            f"`mean` and `std` have {len(mean)} and {len(std)} values, the images "
            f"{images.shape[-1]} channels. Give one per channel, or do not normalise."
        )
    return (images - jnp.asarray(mean, images.dtype)) / jnp.asarray(std, images.dtype)


def rgb_to_grayscale(images: jax.Array) -> jax.Array:
    """Grey values ``(B, H, W, 1)``; a single channel is grey already.

    Raises:
        ValueError: If there are neither 1 nor 3 channels.
    """
    if images.shape[-1] == 1:
        return images
    if images.shape[-1] != 3:
        raise ValueError(f"A colour operation needs 1 or 3 channels, got {images.shape}.")
    return (images * jnp.asarray(GREY_WEIGHTS, images.dtype)).sum(-1, keepdims=True)


def blend(images: jax.Array, base: jax.Array | float, factor: Any) -> jax.Array:
    """``factor * images + (1 - factor) * base``, within [0, 1]."""
    factor = jnp.asarray(factor, images.dtype).reshape(-1, 1, 1, 1)
    return jnp.clip(factor * images + (1 - factor) * base, 0, 1)


def adjust_brightness(images: jax.Array, factor: Any) -> jax.Array:
    """Scale pixels."""
    return blend(images, 0.0, factor)


def adjust_contrast(images: jax.Array, factor: Any) -> jax.Array:
    """Scale the distance to each image's mean grey value."""
    return blend(images, rgb_to_grayscale(images).mean((1, 2, 3), keepdims=True), factor)


def adjust_saturation(images: jax.Array, factor: Any) -> jax.Array:
    """Scale the distance to the grey image."""
    return blend(images, rgb_to_grayscale(images), factor)


def adjust_hue(images: jax.Array, shift: Any) -> jax.Array:
    """Turn the hue by ``shift`` turns, in [-0.5, 0.5], through HSV (Foley & van Dam).

    Raises:
        ValueError: If there are not 3 channels.
    """
    if images.shape[-1] != 3:
        raise ValueError(f"A change of hue needs 3 channels, got {images.shape}.")
    shift = jnp.asarray(shift, images.dtype).reshape(-1, 1, 1)
    value, lowest = images.max(-1), images.min(-1)
    spread = value - lowest
    safe = jnp.where(spread == 0, 1.0, spread)
    r, g, b = ((value - images[..., c]) / safe for c in range(3))
    red, green = value == images[..., 0], value == images[..., 1]
    hue = jnp.where(red, b - g, jnp.where(green, 2 + r - b, 4 + g - r))
    hue = ((hue / 6 + 1) % 1 + shift) % 1
    shades = []
    for offset in (5.0, 3.0, 1.0):  # red, green, blue around the circle
        k = (offset + hue * 6) % 6
        shades.append(value - spread * jnp.clip(jnp.minimum(k, 4 - k), 0, 1))
    return jnp.clip(jnp.stack(shades, axis=-1), 0, 1)


def solarize(images: jax.Array, threshold: float = 0.5) -> jax.Array:
    """Invert the pixels at or above a threshold."""
    return jnp.where(images >= threshold, 1 - images, images)


def color_jitter(
    key: jax.Array,
    images: jax.Array,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
    hue: float = 0.1,
    p: float = 1.0,
) -> jax.Array:
    """Change brightness, contrast, saturation and hue by random factors, in a random order.

    Factors are drawn per image from U(max(0, 1 - x), 1 + x), the hue's shift from U(-hue, hue); the order
    once per batch. Images of one channel have neither saturation nor hue.

    Args:
        key: Random key.
        images: ``(B, H, W, C)`` in [0, 1].
        brightness: At least 0.
        contrast: At least 0.
        saturation: At least 0.
        hue: In [0, 0.5].
        p: Share of the images that are changed.

    Raises:
        ValueError: If a number is out of range.
    """
    amounts = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    for name, value in amounts.items():
        if value < 0:
            raise ValueError(f"`{name}` must be >= 0, got {value}.")
    if not 0 <= hue <= 0.5:
        raise ValueError(f"`hue` must be in [0, 0.5], got {hue}.")
    n = len(images)
    k_order, k_coin, *keys = jax.random.split(key, 6)
    operations = [adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue]
    ranges = [(max(0.0, 1 - x), 1 + x) for x in (brightness, contrast, saturation)] + [(-hue, hue)]
    used = range(4) if images.shape[-1] == 3 else range(2)
    branches = [_jitter(operations[i], keys[i], n, ranges[i]) for i in used]
    changed = images
    for number in jax.random.permutation(k_order, len(branches)):
        changed = jax.lax.switch(number, branches, changed)
    return choose(coins(k_coin, n, p), changed, images)


def _jitter(operation: Any, key: jax.Array, n: int, bounds: tuple[float, float]) -> Any:
    factor = jax.random.uniform(key, (n,), minval=bounds[0], maxval=bounds[1])
    return lambda images: operation(images, factor)


def random_brightness_contrast(
    key: jax.Array, images: jax.Array, brightness: float = 0.4, contrast: float = 0.4
) -> jax.Array:
    """Scale the brightness, then the contrast, of each image by random factors."""
    k_brightness, k_contrast = jax.random.split(key)
    bright, strong = (
        _jitter(operation, k, len(images), (max(0.0, 1 - x), 1 + x))
        for operation, k, x in (
            (adjust_brightness, k_brightness, brightness),
            (adjust_contrast, k_contrast, contrast),
        )
    )
    changed: jax.Array = strong(bright(images))
    return changed


def random_grayscale(key: jax.Array, images: jax.Array, p: float = 0.2) -> jax.Array:
    """Turn each image grey with probability ``p``; it keeps its channels."""
    grey = jnp.broadcast_to(rgb_to_grayscale(images), images.shape)
    return choose(coins(key, len(images), p), grey, images)


def random_solarize(
    key: jax.Array, images: jax.Array, threshold: float = 0.5, p: float = 0.2
) -> jax.Array:
    """Solarize each image with probability ``p``."""
    return choose(coins(key, len(images), p), solarize(images, threshold), images)
