"""The augmentation of published methods on the processor, made from ``_recipe_table``.

``recipes.dino()`` is the transform of a sample; for methods that draw something for the whole
batch (I-JEPA's masks, DeiT's mixing), its ``collate`` goes to the loader. The twin on the
accelerator is ``spt_augment.recipes``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torchvision.transforms import InterpolationMode

from spt_data import transforms as T
from spt_data._errors import keys_of
from spt_data._recipe_table import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    RECIPES,
    BlockMaskSpec,
    MaskSpec,
    MultiBlockMaskSpec,
    RandomMaskSpec,
    Recipe,
    ViewSpec,
)
from spt_data.collate import MultiBlockCollator, collate
from spt_data.datasets import Sample, Transform
from spt_data.mixing import MixCollator

Collate = Callable[[Sequence[Sample]], Any]


class Preset:
    """A recipe in use: called on a sample, it gives its views.

    Attributes:
        recipe: The numbers.
        collate: For the loader's ``collate_fn``.
    """

    def __init__(self, recipe: Recipe, transform: Transform, collate: Collate = collate) -> None:
        self.recipe = recipe
        self.transform = transform
        self.collate = collate

    def __call__(self, sample: Sample) -> Sample:
        """The views of a sample."""
        return self.transform(sample)

    def __repr__(self) -> str:
        return f"Preset({self.recipe.name!r}, {self.transform!r})"


def preset(
    name: str,
    *,
    size: int | None = None,
    local_size: int | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    as_bytes: bool = False,
    num_classes: int | None = None,
) -> Preset:
    """Build a recipe; ``recipes.dino(...)`` is ``recipes.preset("dino", ...)``.

    Args:
        name: One of ``recipes.NAMES``.
        size: Side of the views, or of the global ones, in pixels; the paper's by default.
        local_size: Side of the local views.
        mean: Channel means, in [0, 1].
        std: Channel standard deviations.
        as_bytes: Leave the views uint8, a quarter of the bytes on the way to the device, which
            then converts and normalises them.
        num_classes: Number of classes, for recipes that mix labels.

    Returns:
        A transform of samples whose ``image`` is a PIL image of any mode, or a uint8 tensor
        ``(C, H, W)``.

    Raises:
        ValueError: If there is no such recipe, ``num_classes`` is missing, or ``as_bytes`` is
            asked of a recipe that changes normalised images.

    Example:
        >>> sorted(preset("dino", size=32, local_size=16)({"image": torch.zeros(3, 40, 40)}))[:3]
        ['global_1', 'global_2', 'local_1']
    """
    if name not in RECIPES:
        raise ValueError(f"Unknown recipe {name!r}; there are {list(RECIPES)}.")
    recipe = RECIPES[name].resized(size, local_size).normalised(tuple(mean), tuple(std))
    if as_bytes and (recipe.mix is not None or any(view.erasing_p for view in recipe.views)):
        raise ValueError(
            f"The recipe {name!r} erases or mixes normalised images, so its views cannot stay "
            "bytes; use as_bytes=False."
        )
    views = [view_transform(view, as_bytes) for view in recipe.views]
    if len(views) == 1:
        return _single(recipe, views[0], num_classes)
    names = [view.name for view in recipe.views]
    return Preset(
        recipe,
        T.Compose(
            T.RGB(),
            T.MultiViewTransform(dict(zip(names, views, strict=True)) if recipe.named else views),
        ),
    )


def view_transform(view: ViewSpec, as_bytes: bool = False) -> T.Compose:
    """The transform of one view: crop, flip, colours, conversion, erasing."""
    last = (
        T.ToImage(dtype=torch.uint8)
        if as_bytes
        else T.ToImage(mean=list(view.mean), std=list(view.std))
    )
    steps: list[Transform] = [
        T.RandomResizedCrop(
            view.size,
            view.crop_scale,
            view.crop_ratio,
            interpolation=InterpolationMode(view.interpolation),
        ),
        *_colours(view),
        last,
    ]
    if view.erasing_p:
        steps.append(T.RandomErasing(view.erasing_p, value="random"))
    return T.Compose(*steps)


def _colours(view: ViewSpec) -> list[Transform]:
    """The steps between the crop and the conversion that have a probability."""
    steps: list[Transform] = []
    if view.flip_p:
        steps.append(T.RandomHorizontalFlip(view.flip_p))
    if view.jitter is not None:
        steps.append(T.ColorJitter(*view.jitter, p=view.jitter_p))
    if view.grayscale_p:
        steps.append(T.RandomGrayscale(view.grayscale_p))
    if view.blur_p:
        steps.append(_Blur(view))
    if view.solarize_p:
        steps.append(T.RandomSolarize(view.solarize_threshold, view.solarize_p))
    if view.rand_augment is not None:
        spec = view.rand_augment
        steps.append(
            T.RandAugment(spec.num_ops, spec.magnitude, spec.magnitude_std, spec.magnitude_max)
        )
    return steps


class _Blur:
    """Pillow's blur for PIL images, which is many times faster there, and taps for tensors."""

    def __init__(self, view: ViewSpec) -> None:
        self.pil = T.PILGaussianBlur(view.blur_sigma, view.blur_p)
        taps = min(view.blur_kernel, (view.size - 1) | 1)  # no wider than a small view
        self.tensor = T.GaussianBlur(taps, view.blur_sigma, view.blur_p)

    def __call__(self, sample: Sample) -> Sample:
        if "image" not in sample:
            raise KeyError(f"GaussianBlur needs the key 'image'; it has {keys_of(sample)}.")
        return (self.pil if isinstance(sample["image"], Image.Image) else self.tensor)(sample)

    def __repr__(self) -> str:
        return repr(self.tensor)


def _single(recipe: Recipe, view: T.Compose, num_classes: int | None) -> Preset:
    """One view, with what is drawn beside it."""
    steps: list[Transform] = [T.RGB(), *view.transforms]
    if recipe.mix is not None:
        if num_classes is None:
            raise ValueError(
                f"The recipe {recipe.name!r} mixes labels; give it `num_classes`, for example "
                f"recipes.{recipe.name}(num_classes=1000)."
            )
        mix = MixCollator(num_classes, **vars(recipe.mix))
        return Preset(recipe, T.Compose(*steps, T.DrawSeed("mix_seed")), mix)
    if recipe.mask is None:
        return Preset(recipe, T.Compose(*steps))
    mask, collator = _mask(recipe.mask)
    return Preset(recipe, T.Compose(*steps, mask), collator)


def _mask(spec: MaskSpec) -> tuple[Transform, Collate]:
    if isinstance(spec, RandomMaskSpec):
        return T.RandomMask(spec.patch_size, spec.mask_ratio), collate
    if isinstance(spec, BlockMaskSpec):
        mask = T.BlockwiseMask(
            spec.patch_size, spec.num_masked, spec.min_block, aspect_ratio=spec.aspect_ratio
        )
        return mask, collate
    return T.DrawSeed(), _multi_block(spec)


def _multi_block(spec: MultiBlockMaskSpec) -> MultiBlockCollator:
    n = spec.num_targets
    return MultiBlockCollator(
        spec.patch_size,
        spec.context_scale,
        spec.context_aspect_ratio,
        (spec.target_scale,) * n,
        (spec.target_aspect_ratio,) * n,
        spec.min_keep,
    )


def evaluation(
    size: int = 224,
    resize: int | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> T.Compose:
    """Short side to ``resize`` (8/7 of ``size`` by default), the centre of it, normalised.

    Args:
        size: Side of the result in pixels.
        resize: Short side before the centre is cut; the aspect is kept.
        mean: Channel means, in [0, 1].
        std: Channel standard deviations.
    """
    short = round(size * 8 / 7) if resize is None else resize
    return T.Compose(
        T.RGB(), T.Resize(short), T.CenterCrop(size), T.ToImage(mean=list(mean), std=list(std))
    )


def for_device(size: int = 256) -> T.Compose:
    """What an accelerator recipe needs of the loader: uint8 squares of one size.

    The aspect is kept: the short side becomes ``size``, and the centre is cut.

    Args:
        size: Side in pixels. A crop of 8 % of 256 x 256 is 72 pixels wide: for output of 224 a
            larger size keeps more detail.
    """
    return T.Compose(T.RGB(), T.Resize(size), T.CenterCrop(size), T.ToImage(dtype=torch.uint8))


class _Named:
    """A recipe's own function."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.__doc__ = f"The recipe {name!r}, arXiv {RECIPES[name].arxiv}; see :func:`preset`."

    def __call__(
        self,
        *,
        size: int | None = None,
        local_size: int | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        as_bytes: bool = False,
        num_classes: int | None = None,
    ) -> Preset:
        """Build it."""
        return preset(
            self.name,
            size=size,
            local_size=local_size,
            mean=mean,
            std=std,
            as_bytes=as_bytes,
            num_classes=num_classes,
        )


NAMES = tuple(RECIPES)

simclr = _Named("simclr")
simclr_cifar = _Named("simclr_cifar")
moco_v2 = _Named("moco_v2")
moco_v3 = _Named("moco_v3")
byol = _Named("byol")
barlow_twins = _Named("barlow_twins")
vicreg = _Named("vicreg")
swav = _Named("swav")
dino = _Named("dino")
dinov2 = _Named("dinov2")
lejepa = _Named("lejepa")
mae = _Named("mae")
ijepa = _Named("ijepa")
beit = _Named("beit")
deit = _Named("deit")
