"""The augmentation of published methods, as numbers.

Plain data that imports nothing of ours. The recipes on the processor and those on the
accelerator are built from two copies of this file, equal byte for byte: one specification.

The steps of a view come in the order of its fields: crop, flip, jitter, grey, blur, solarize,
RandAugment, normalise, erase. A probability of 0, or ``None``, leaves a step out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Range = tuple[float, float]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class RandAugmentSpec:
    """RandAugment: operations per image; magnitude of ``magnitude_max``, normal with a spread."""

    num_ops: int = 2
    magnitude: float = 9.0
    magnitude_std: float = 0.5
    magnitude_max: float = 10.0


@dataclass(frozen=True)
class ViewSpec:
    """One view: its name, its crop and what happens to its colours.

    ``crop_scale`` is a range of area shares, ``crop_ratio`` of width over height. ``jitter``
    holds brightness, contrast, saturation and hue. ``blur_sigma`` is in pixels,
    ``solarize_threshold`` in [0, 1].
    """

    name: str
    size: int = 224
    crop_scale: Range = (0.08, 1.0)
    crop_ratio: Range = (3 / 4, 4 / 3)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    flip_p: float = 0.5
    jitter: tuple[float, float, float, float] | None = None
    jitter_p: float = 0.8
    grayscale_p: float = 0.0
    blur_p: float = 0.0
    blur_sigma: Range = (0.1, 2.0)
    blur_kernel: int = 23
    solarize_p: float = 0.0
    solarize_threshold: float = 0.5
    rand_augment: RandAugmentSpec | None = None
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    erasing_p: float = 0.0


@dataclass(frozen=True)
class RandomMaskSpec:
    """MAE: a random share of the patches, another for each image."""

    patch_size: int = 16
    mask_ratio: float = 0.75


@dataclass(frozen=True)
class BlockMaskSpec:
    """BEiT: rectangles until about ``num_masked`` patches are covered; aspect is height / width."""

    patch_size: int = 16
    num_masked: int = 75
    min_block: int = 16
    aspect_ratio: Range = (0.3, 1 / 0.3)


@dataclass(frozen=True)
class MultiBlockMaskSpec:
    """I-JEPA: one context and several targets; a batch shares block sizes and lengths."""

    patch_size: int = 16
    num_targets: int = 4
    target_scale: Range = (0.15, 0.2)
    target_aspect_ratio: Range = (0.75, 1.5)
    context_scale: Range = (0.85, 1.0)
    context_aspect_ratio: Range = (1.0, 1.0)
    min_keep: int = 10


@dataclass(frozen=True)
class MixSpec:
    """Mixup or CutMix of a batch, and label smoothing."""

    mixup_alpha: float = 0.8
    cutmix_alpha: float = 1.0
    prob: float = 1.0
    switch_prob: float = 0.5
    label_smoothing: float = 0.1


MaskSpec = RandomMaskSpec | BlockMaskSpec | MultiBlockMaskSpec


@dataclass(frozen=True)
class Recipe:
    """The views of a method in order, its mask and its mixing.

    ``named`` says that the views travel under their names (``global_1``, ``local_1``) instead of
    as a list; a recipe of one view is a plain sample.
    """

    name: str
    arxiv: str
    views: tuple[ViewSpec, ...]
    named: bool = False
    mask: MaskSpec | None = None
    mix: MixSpec | None = None

    def resized(self, size: int | None = None, local_size: int | None = None) -> Recipe:
        """The same recipe at another output size: of local crops, and of all other views.

        BEiT's blocks keep their share of the patches.
        """
        sizes = {True: local_size, False: size}
        views = tuple(
            replace(view, size=sizes[view.name.startswith("local")] or view.size)
            for view in self.views
        )
        mask = self.mask
        if size is not None and isinstance(mask, BlockMaskSpec):
            share = (size // mask.patch_size) ** 2 / (self.views[0].size // mask.patch_size) ** 2
            mask = replace(
                mask,
                num_masked=round(mask.num_masked * share),
                min_block=max(1, round(mask.min_block * share)),
            )
        return replace(self, views=views, mask=mask)

    def normalised(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Recipe:
        """The same recipe with other channel statistics."""
        return replace(self, views=tuple(replace(view, mean=mean, std=std) for view in self.views))


def _twice(view: ViewSpec) -> tuple[ViewSpec, ViewSpec]:
    return replace(view, name="view_1"), replace(view, name="view_2")


def _crops(first: ViewSpec, second: ViewSpec, local: ViewSpec, n: int) -> tuple[ViewSpec, ...]:
    """Two global crops and ``n`` equal local ones."""
    return (
        replace(first, name="global_1"),
        replace(second, name="global_2"),
        *(replace(local, name=f"local_{i + 1}") for i in range(n)),
    )


_SIMCLR = ViewSpec("view", jitter=(0.8, 0.8, 0.8, 0.2), grayscale_p=0.2, blur_p=0.5)
_SIMCLR_CIFAR = replace(_SIMCLR, size=32, jitter=(0.4, 0.4, 0.4, 0.1), blur_p=0.0)
_MOCO_V2 = replace(_SIMCLR, crop_scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1))
_BYOL = ViewSpec("view", interpolation="bicubic", jitter=(0.4, 0.4, 0.2, 0.1), grayscale_p=0.2)
_BYOL_VIEWS = (
    replace(_BYOL, name="view_1", blur_p=1.0),
    replace(_BYOL, name="view_2", blur_p=0.1, solarize_p=0.2),
)
_MOCO_V3_VIEWS = tuple(replace(view, interpolation="bilinear") for view in _BYOL_VIEWS)
_SWAV = replace(_SIMCLR, crop_scale=(0.14, 1.0))
_SWAV_LOCAL = replace(_SIMCLR, size=96, crop_scale=(0.05, 0.14))


def _dino(split: float) -> tuple[ViewSpec, ...]:
    """Global crops above an area share, local ones below it."""
    one, two = (replace(view, crop_scale=(split, 1.0)) for view in _BYOL_VIEWS)
    return _crops(one, two, replace(_BYOL, size=96, crop_scale=(0.05, split), blur_p=0.5), 8)


# README.md of the official code; its local crops have 98 pixels, seven patches of 14, here six of 16
_LEJEPA = ViewSpec(
    "view", crop_scale=(0.3, 1.0), jitter=(0.4, 0.4, 0.2, 0.1), grayscale_p=0.2, blur_p=0.5,
    solarize_p=0.2,
)  # fmt: skip
_LEJEPA_LOCAL = replace(_LEJEPA, size=96, crop_scale=(0.05, 0.3))
_MAE = ViewSpec("image", crop_scale=(0.2, 1.0), interpolation="bicubic")
_IJEPA = ViewSpec("image", crop_scale=(0.3, 1.0), flip_p=0.0)
_BEIT = ViewSpec("image", interpolation="bicubic", jitter=(0.4, 0.4, 0.4, 0.0), jitter_p=1.0)
_DEIT = ViewSpec("image", interpolation="bicubic", rand_augment=RandAugmentSpec(), erasing_p=0.25)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("simclr", "2002.05709", _twice(_SIMCLR)),
        Recipe("simclr_cifar", "2002.05709", _twice(_SIMCLR_CIFAR)),
        Recipe("moco_v2", "2003.04297", _twice(_MOCO_V2)),
        Recipe("moco_v3", "2104.02057", _MOCO_V3_VIEWS),
        Recipe("byol", "2006.07733", _BYOL_VIEWS),
        Recipe("barlow_twins", "2103.03230", _BYOL_VIEWS),
        Recipe("vicreg", "2105.04906", _twice(replace(_BYOL, blur_p=0.5, solarize_p=0.1))),
        Recipe("swav", "2006.09882", _crops(_SWAV, _SWAV, _SWAV_LOCAL, 6), named=True),
        Recipe("dino", "2104.14294", _dino(0.4), named=True),
        Recipe("dinov2", "2304.07193", _dino(0.32), named=True),
        Recipe("lejepa", "2511.08544", _crops(_LEJEPA, _LEJEPA, _LEJEPA_LOCAL, 6), named=True),
        Recipe("mae", "2111.06377", (_MAE,), mask=RandomMaskSpec()),
        Recipe("ijepa", "2301.08243", (_IJEPA,), mask=MultiBlockMaskSpec()),
        Recipe("beit", "2106.08254", (_BEIT,), mask=BlockMaskSpec()),
        Recipe("deit", "2012.12877", (_DEIT,), mix=MixSpec()),
    )
}
