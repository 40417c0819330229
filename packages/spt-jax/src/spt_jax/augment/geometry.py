"""Crops and flips, each sample with its own parameters, the batch in two matrix products.

A separable resize of a crop is ``rows @ image @ columns.T``, with one small matrix of filter weights per
sample and axis. The weights are those of torch's antialiased bilinear interpolation, so results agree
with torchvision's crop followed by an antialiased resize.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

TRIES = 10


def separable(images: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """``rows @ image @ columns.T`` for each image and channel.

    Args:
        images: ``(B, H, W, C)``.
        rows: ``(B, h, H)``.
        columns: ``(B, w, W)``.

    Returns:
        ``(B, h, w, C)``.
    """
    return jnp.einsum("bih,bhwc,bjw->bijc", rows, images, columns, optimize=True)


def crop_resize(images: jax.Array, boxes: jax.Array, size: int | tuple[int, int]) -> jax.Array:
    """Crop each image to its own box and resize it, bilinear and antialiased.

    Args:
        images: Float images ``(B, H, W, C)``.
        boxes: Top, left, height and width in pixels, ``(B, 4)``, inside the image.
        size: Height and width of the result; one number for a square.
    """
    height, width = (size, size) if isinstance(size, int) else size
    rows = resize_weights(boxes[:, 0], boxes[:, 2], images.shape[1], height)
    columns = resize_weights(boxes[:, 1], boxes[:, 3], images.shape[2], width)
    return separable(images, rows, columns)


def crop_resize_image(
    image: jax.Array, top: int, left: int, height: int, width: int, size: int | tuple[int, int]
) -> jax.Array:
    """:func:`crop_resize` of one image ``(H, W, C)``."""
    return crop_resize(image[None], jnp.asarray([[top, left, height, width]]), size)[0]


def resize_weights(start: jax.Array, length: jax.Array, pixels: int, out: int) -> jax.Array:
    """Filter weights of an antialiased bilinear resize of segments of a line.

    Args:
        start: First pixel of each segment, ``(B,)``.
        length: Pixels of each segment, ``(B,)``.
        pixels: Pixels of the whole line.
        out: Pixels after the resize.

    Returns:
        ``(B, out, pixels)``; each row sums to 1.
    """
    scale = (length.astype(jnp.float32) / out)[:, None, None]
    reach = jnp.maximum(scale, 1.0)
    centre = scale * (jnp.arange(out)[:, None] + 0.5)  # (B, out, 1)
    pixel = jnp.arange(pixels) - start[:, None, None]  # (B, 1, pixels)
    weights = jnp.maximum(1.0 - jnp.abs(pixel + 0.5 - centre) / reach, 0.0)
    inside = (pixel >= 0) & (pixel < length[:, None, None])
    weights = jnp.where(inside, weights, 0.0)
    return weights / weights.sum(-1, keepdims=True)


def crop_boxes(
    key: jax.Array,
    n: int,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> jax.Array:
    """Draw ``n`` crops as torchvision does: ten tries, then the largest central one in the aspect range.

    Returns:
        int32 ``(n, 4)``: top, left, height, width in pixels.
    """
    k_area, k_ratio, k_place = jax.random.split(key, 3)
    shape = (n, TRIES)
    area = height * width * jax.random.uniform(k_area, shape, minval=scale[0], maxval=scale[1])
    low, high = jnp.log(ratio[0]), jnp.log(ratio[1])
    aspect = jnp.exp(jax.random.uniform(k_ratio, shape, minval=low, maxval=high))
    w = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)
    h = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.argmax(1)[:, None]
    w, h = (jnp.take_along_axis(side, first, axis=1)[:, 0] for side in (w, h))
    place = jax.random.uniform(k_place, (2, n))
    top = jnp.floor(place[0] * (height - h + 1)).astype(jnp.int32)
    left = jnp.floor(place[1] * (width - w + 1)).astype(jnp.int32)
    drawn = jnp.stack([top, left, h, w], axis=1)
    return jnp.where(fits.any(1)[:, None], drawn, jnp.asarray(central_box(height, width, ratio)))


def central_box(height: int, width: int, ratio: tuple[float, float]) -> list[int]:
    """The largest central crop within the aspect range."""
    aspect, h, w = width / height, height, width
    if aspect < ratio[0]:
        h = round(width / ratio[0])
    elif aspect > ratio[1]:
        w = round(height * ratio[1])
    return [(height - h) // 2, (width - w) // 2, h, w]


def random_resized_crop(
    key: jax.Array,
    images: jax.Array,
    size: int | tuple[int, int],
    scale: tuple[float, float] = (0.2, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> jax.Array:
    """Crop a random area of each image and resize it, antialiased.

    Args:
        key: Random key.
        images: ``(B, H, W, C)``.
        size: Height and width of the result.
        scale: Range of the crop's share of the area, within (0, 1].
        ratio: Range of width / height, drawn log-uniformly.

    Raises:
        ValueError: If a range is empty or out of bounds.
    """
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"`scale` must be a range within (0, 1], got {tuple(scale)}.")
    if not 0 < ratio[0] <= ratio[1]:
        raise ValueError(f"`ratio` must be a range of positive numbers, got {tuple(ratio)}.")
    boxes = crop_boxes(key, len(images), images.shape[1], images.shape[2], scale, ratio)
    return crop_resize(images, boxes, size)


def hflip(images: jax.Array) -> jax.Array:
    """Images ``(..., H, W, C)`` mirrored left to right."""
    return images[..., ::-1, :]


def random_horizontal_flip(key: jax.Array, images: jax.Array, p: float = 0.5) -> jax.Array:
    """Mirror each image left to right with probability ``p``."""
    return choose(coins(key, len(images), p), hflip(images), images)


def coins(key: jax.Array, n: int, p: float) -> jax.Array:
    """``n`` independent choices, True with probability ``p``.

    Raises:
        ValueError: If ``p`` is no probability.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"`p` must be in [0, 1], got {p}.")
    return jax.random.uniform(key, (n,)) < p


def choose(chosen: jax.Array, changed: jax.Array, images: jax.Array) -> jax.Array:
    """The changed image where chosen ``(B,)``, else the image itself."""
    return jnp.where(chosen[:, None, None, None], changed, images)
