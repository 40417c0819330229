"""Recipes of random views, and transforms of batches for ``Module(transform=...)``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax

from spt_jax.augment.blur import random_gaussian_blur
from spt_jax.augment.color import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    color_jitter,
    normalize,
    random_grayscale,
    random_solarize,
    to_float,
)
from spt_jax.augment.geometry import crop_resize, random_horizontal_flip, random_resized_crop

Batch = dict[str, Any]
Transform = Callable[[jax.Array, Mapping[str, Any]], Batch]


@dataclass(frozen=True)
class Recipe:
    """One random view: crop, flip, jitter, grey, blur, solarize, normalise, each left out at probability 0.

    Attributes:
        size: Height and width.
        scale: Range of the crop's share of the area.
        ratio: Range of width / height.
        flip: Probability of a horizontal flip.
        jitter: Strengths of brightness, contrast, saturation and hue.
        jitter_p: Probability of the jitter.
        gray: Probability of a grey image.
        blur: Probability of a blur.
        kernel_size: Its taps; about a tenth of the size, odd, if ``None``.
        sigma: Range of its width in pixels.
        solarize: Probability of solarization at 0.5.
        mean: Of each channel; ``None`` does not normalise.
        std: Of each channel.
    """

    size: int
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    jitter_p: float = 0.8
    gray: float = 0.2
    blur: float = 0.0
    kernel_size: int | None = None
    sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0
    mean: tuple[float, ...] | None = IMAGENET_MEAN
    std: tuple[float, ...] | None = IMAGENET_STD

    def __call__(self, key: jax.Array, images: jax.Array) -> jax.Array:
        """A view ``(B, size, size, C)`` of images ``(B, H, W, C)``, uint8 or in [0, 1]."""
        keys = iter(jax.random.split(key, 6))
        x = random_resized_crop(next(keys), to_float(images), self.size, self.scale, self.ratio)
        x = random_horizontal_flip(next(keys), x, self.flip)
        x = color_jitter(next(keys), x, *self.jitter, p=self.jitter_p) if self.jitter_p else x
        x = random_grayscale(next(keys), x, self.gray) if self.gray else x
        if self.blur:
            taps = self.kernel_size or self.size // 20 * 2 + 1
            x = random_gaussian_blur(next(keys), x, taps, self.sigma, self.blur)
        x = random_solarize(next(keys), x, p=self.solarize) if self.solarize else x
        return x if self.mean is None else normalize(x, self.mean, self.std or ())


def plain(recipe: Recipe) -> Recipe:
    """The recipe without normalisation."""
    return replace(recipe, mean=None, std=None)


def simclr_recipe(size: int, *, strength: float = 1.0, blur: float = 0.5) -> Recipe:
    """SimCLR's view (https://arxiv.org/abs/2002.05709, appendix A)."""
    s = strength
    return Recipe(size, (0.08, 1.0), jitter=(0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s), blur=blur)


def byol_recipes(size: int) -> tuple[Recipe, Recipe]:
    """BYOL's two views (https://arxiv.org/abs/2006.07733, table 6): one blurred, one solarized."""
    first = Recipe(size, (0.08, 1.0), jitter=(0.4, 0.4, 0.2, 0.1), blur=1.0)
    return first, replace(first, blur=0.1, solarize=0.2)


def simclr_view(
    key: jax.Array,
    images: jax.Array,
    size: int,
    normalize_output: bool = True,
    scale: tuple[float, float] = (0.2, 1.0),
) -> jax.Array:
    """Crop, flip, jitter, grey and, if asked, normalisation with ImageNet's statistics."""
    recipe = Recipe(size, scale)
    return (recipe if normalize_output else plain(recipe))(key, images)


def two_crop(
    key: jax.Array,
    images: jax.Array,
    size: int,
    normalize_output: bool = True,
    scale: tuple[float, float] = (0.2, 1.0),
) -> tuple[jax.Array, jax.Array]:
    """Two independent :func:`simclr_view`."""
    first, second = (
        simclr_view(k, images, size, normalize_output, scale) for k in jax.random.split(key)
    )
    return first, second


def multi_view_transform(recipes: Sequence[Callable[..., jax.Array]]) -> Transform:
    """A transform that adds ``views``, one per recipe, each with its ``image`` and the ``label``.

    Raises:
        ValueError: If there is no recipe.
    """
    if not recipes:
        raise ValueError("`recipes` must hold at least one recipe, got none.")

    def transform(key: jax.Array, batch: Mapping[str, Any]) -> Batch:
        return {**batch, "views": views_of(key, batch, recipes)}

    return transform


def two_view_transform(
    size: int, normalize_output: bool = True, scale: tuple[float, float] = (0.2, 1.0)
) -> Transform:
    """A transform ``(key, batch) -> batch`` that adds two :func:`simclr_view` under ``views``.

    Args:
        size: Height and width of the views.
        normalize_output: Normalise with ImageNet's statistics (three channels).
        scale: Range of the crop's share of the area.
    """
    recipe = Recipe(size, scale)
    return multi_view_transform([recipe if normalize_output else plain(recipe)] * 2)


def multi_crop_transform(
    global_size: int,
    local_size: int,
    n_local: int = 8,
    *,
    global_scale: tuple[float, float] = (0.25, 1.0),
    local_scale: tuple[float, float] = (0.05, 0.25),
    normalize_output: bool = True,
) -> Transform:
    """A transform that adds two ``global_views`` and ``n_local`` ``local_views``, as DINO's.

    The first large crop is always blurred, the second rarely, and solarized sometimes; small ones are
    blurred half of the time (https://arxiv.org/abs/2104.14294, official ``DataAugmentationDINO``).
    """
    base = Recipe(global_size, global_scale, jitter=(0.4, 0.4, 0.2, 0.1), blur=1.0)
    if not normalize_output:
        base = plain(base)
    large = [base, replace(base, blur=0.1, solarize=0.2)]
    small = [replace(base, size=local_size, scale=local_scale, blur=0.5)] * n_local

    def transform(key: jax.Array, batch: Mapping[str, Any]) -> Batch:
        k_large, k_small = jax.random.split(key)
        views = {"global_views": views_of(k_large, batch, large)}
        return {**batch, **views, "local_views": views_of(k_small, batch, small)}

    return transform


def views_of(
    key: jax.Array, batch: Mapping[str, Any], recipes: Sequence[Callable[..., jax.Array]]
) -> list[Batch]:
    """One dict of images (and labels) per recipe."""
    views = []
    for k, recipe in zip(jax.random.split(key, len(recipes)), recipes, strict=True):
        view = {"image": recipe(k, batch["image"])}
        views.append({**view, "label": batch["label"]} if "label" in batch else view)
    return views


def eval_transform(
    size: int | None = None,
    mean: Sequence[float] | None = IMAGENET_MEAN,
    std: Sequence[float] | None = IMAGENET_STD,
) -> Callable[[Mapping[str, Any]], Batch]:
    """A transform ``batch -> batch`` for evaluation: resize, if asked, and normalise.

    Args:
        size: Height and width; as they are if ``None``.
        mean: Of each channel; ``None`` does not normalise.
        std: Of each channel.
    """

    def transform(batch: Mapping[str, Any]) -> Batch:
        x = to_float(batch["image"])
        if size is not None:
            box = jax.numpy.asarray([[0, 0, x.shape[1], x.shape[2]]])
            x = crop_resize(x, jax.numpy.repeat(box, len(x), axis=0), size)
        return {**batch, "image": x if mean is None else normalize(x, mean, std or ())}

    return transform
