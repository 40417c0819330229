"""Augmentation on the device: pure functions of a key and a batch of images ``(B, H, W, C)``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

Batch = dict[str, Any]


def random_resized_crop(
    key: jax.Array,
    images: jax.Array,
    size: int,
    scale: tuple[float, float] = (0.2, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> jax.Array:
    """Crop a random area of each image and resize it, antialiased.

    Args:
        key: Random key.
        images: ``(B, H, W, C)``.
        size: Height and width of the result.
        scale: Range of the crop's share of the area.
        ratio: Range of width / height, drawn log-uniformly.
    """
    n, height, width, channels = images.shape
    k_area, k_ratio, k_top, k_left = jax.random.split(key, 4)
    area = jax.random.uniform(k_area, (n,), minval=scale[0], maxval=scale[1]) * height * width
    low, high = jnp.log(ratio[0]), jnp.log(ratio[1])
    aspect = jnp.exp(jax.random.uniform(k_ratio, (n,), minval=low, maxval=high))
    h = jnp.minimum(jnp.sqrt(area / aspect), height)
    w = jnp.minimum(jnp.sqrt(area * aspect), width)
    top = jax.random.uniform(k_top, (n,)) * (height - h)
    left = jax.random.uniform(k_left, (n,)) * (width - w)

    def one(image: jax.Array, top: Any, left: Any, h: Any, w: Any) -> jax.Array:
        zoom = jnp.stack([size / h, size / w])
        shift = -jnp.stack([top, left]) * zoom
        shape = (size, size, channels)
        return jax.image.scale_and_translate(image, shape, (0, 1), zoom, shift, "linear")

    return jax.vmap(one)(images, top, left, h, w)


def random_horizontal_flip(key: jax.Array, images: jax.Array, p: float = 0.5) -> jax.Array:
    """Mirror each image left to right with probability ``p``."""
    flip = jax.random.bernoulli(key, p, (len(images), 1, 1, 1))
    return jnp.where(flip, images[:, :, ::-1], images)


def random_brightness_contrast(
    key: jax.Array, images: jax.Array, brightness: float = 0.4, contrast: float = 0.4
) -> jax.Array:
    """Scale the brightness, then the contrast, of each image by random factors."""
    k_brightness, k_contrast = jax.random.split(key)
    shape = (len(images), 1, 1, 1)
    gain = jax.random.uniform(k_brightness, shape, minval=1 - brightness, maxval=1 + brightness)
    images = jnp.clip(images * gain, 0, 1)
    factor = jax.random.uniform(k_contrast, shape, minval=1 - contrast, maxval=1 + contrast)
    mean = images.mean((1, 2, 3), keepdims=True)
    return jnp.clip((images - mean) * factor + mean, 0, 1)


def simclr_view(
    key: jax.Array, images: jax.Array, size: int, scale: tuple[float, float] = (0.2, 1.0)
) -> jax.Array:
    """One random view: crop, flip, brightness and contrast."""
    k_crop, k_flip, k_jitter = jax.random.split(key, 3)
    images = random_resized_crop(k_crop, images, size, scale)
    images = random_horizontal_flip(k_flip, images)
    return random_brightness_contrast(k_jitter, images)


def two_view_transform(
    size: int, scale: tuple[float, float] = (0.2, 1.0)
) -> Callable[[jax.Array, Mapping[str, Any]], Batch]:
    """A transform ``(key, batch) -> batch`` that adds two views under ``views``.

    Args:
        size: Height and width of the views.
        scale: Range of the crop's share of the area.
    """

    def transform(key: jax.Array, batch: Mapping[str, Any]) -> Batch:
        views = []
        for k in jax.random.split(key):
            view = {"image": simclr_view(k, batch["image"], size, scale)}
            views.append({**view, "label": batch["label"]} if "label" in batch else view)
        return {**batch, "views": views}

    return transform
