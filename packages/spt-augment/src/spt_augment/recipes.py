"""The augmentation of published methods, on the batch.

Every recipe comes from the same table of numbers as its form for single samples in
``spt_data.recipes``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import nn

from spt_augment._recipe_table import (
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
from spt_augment.base import BatchTransform
from spt_augment.blur import GPUGaussianBlur
from spt_augment.color import GPUColorJitter, GPUNormalize, GPURandomGrayscale, GPURandomSolarize
from spt_augment.compose import GPUCompose
from spt_augment.erasing import GPURandomErasing
from spt_augment.geometric import GPURandomHorizontalFlip, GPURandomResizedCrop
from spt_augment.masks import BatchBlockwiseMask, BatchMultiBlockMask, BatchRandomMask
from spt_augment.mix import MixBatch, RandomMixupCutmix
from spt_augment.rand_augment import LARGEST, GPURandAugment
from spt_augment.views import MultiView, StackedMultiView


def preset(
    name: str,
    *,
    size: int | None = None,
    local_size: int | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    num_classes: int | None = None,
    compile: bool = True,
) -> BatchTransform:
    """Build a recipe; ``recipes.dino(...)`` is ``recipes.preset("dino", ...)``.

    Args:
        name: One of ``recipes.NAMES``, such as ``"simclr"``.
        size: Side of the views in pixels, of local crops excepted; ``None`` for the paper's.
        local_size: Side of local crops in pixels.
        mean: Channel means in units of [0, 1].
        std: Channel standard deviations.
        num_classes: Number of classes, for recipes that mix labels.
        compile: As in :class:`~spt_augment.GPUCompose`.

    Returns:
        From a batch with ``image`` to one with ``views`` (a list), with named crops
        (``global_1``, ``local_1``, ...), or with one ``image`` and the recipe's masks.

    Raises:
        ValueError: If there is no such recipe, or ``num_classes`` is missing.

    Example:
        >>> import torch
        >>> batch = {"image": torch.zeros(2, 3, 64, 64, dtype=torch.uint8)}
        >>> [view["image"].shape[-1] for view in preset("byol", size=32)(batch)["views"]]
        [32, 32]
    """
    if name not in RECIPES:
        raise ValueError(f"Unknown recipe {name!r}; there are {list(NAMES)}.")
    recipe = RECIPES[name].resized(size, local_size).normalised(tuple(mean), tuple(std))
    if len(recipe.views) > 1:
        return _views(recipe, compile)
    (view,) = recipe.views
    steps = steps_of(view)
    if recipe.mask is not None:
        steps.append(mask_of(recipe.mask))
    if recipe.mix is not None:
        steps.append(mixing_of(recipe, num_classes))
    return GPUCompose(steps, compile=compile)


def _views(recipe: Recipe, compile: bool) -> BatchTransform:
    """Equal neighbours are cut and changed together; others have a chain each."""
    groups: list[tuple[ViewSpec, int]] = []
    for view in recipe.views:
        if groups and steps_key(groups[-1][0]) == steps_key(view):
            groups[-1] = (groups[-1][0], groups[-1][1] + 1)
        else:
            groups.append((view, 1))
    chains: dict[str, nn.Module] = {}
    for view, count in groups:
        chain = GPUCompose(steps_of(view), compile=compile)
        if count == 1:
            chains[view.name] = chain
        else:
            chains[view.name.rpartition("_")[0]] = StackedMultiView(chain, n_views=count)
    if recipe.named:
        return MultiView(chains)
    if len(chains) == 1 and isinstance(only := next(iter(chains.values())), StackedMultiView):
        return only
    return MultiView(list(chains.values()))


def steps_key(view: ViewSpec) -> ViewSpec:
    """A view without its name."""
    return ViewSpec(**{**view.__dict__, "name": ""})


def steps_of(view: ViewSpec) -> list[nn.Module]:
    """The transforms of a view, in order; a probability of 0 leaves one out."""
    crop = GPURandomResizedCrop(
        view.size, view.crop_scale, view.crop_ratio, interpolation=view.interpolation
    )
    steps: list[nn.Module] = [crop]
    if view.flip_p > 0:
        steps.append(GPURandomHorizontalFlip(view.flip_p))
    if view.jitter is not None:
        steps.append(GPUColorJitter(*view.jitter, p=view.jitter_p))
    if view.grayscale_p > 0:
        steps.append(GPURandomGrayscale(view.grayscale_p))
    if view.blur_p > 0:
        taps = min(view.blur_kernel, (view.size - 1) | 1)  # no wider than a small view
        steps.append(GPUGaussianBlur(taps, view.blur_sigma, view.blur_p))
    if view.solarize_p > 0:
        steps.append(GPURandomSolarize(view.solarize_threshold, view.solarize_p))
    if view.rand_augment is not None:
        spec = view.rand_augment
        unit = LARGEST / spec.magnitude_max
        steps.append(
            GPURandAugment(
                spec.num_ops,
                spec.magnitude * unit,
                spec.magnitude_std * unit,
                interpolation="bilinear",
            )
        )
    steps.append(GPUNormalize(view.mean, view.std))
    if view.erasing_p > 0:
        steps.append(GPURandomErasing(value="random", p=view.erasing_p))
    return steps


def mask_of(spec: MaskSpec) -> BatchTransform:
    """The mask of a recipe."""
    if isinstance(spec, RandomMaskSpec):
        return BatchRandomMask(spec.patch_size, spec.mask_ratio)
    if isinstance(spec, BlockMaskSpec):
        return BatchBlockwiseMask(
            spec.patch_size, spec.num_masked, spec.min_block, aspect_ratio=spec.aspect_ratio
        )
    assert isinstance(spec, MultiBlockMaskSpec)
    return BatchMultiBlockMask(
        spec.patch_size,
        spec.num_targets,
        spec.target_scale,
        spec.target_aspect_ratio,
        spec.context_scale,
        spec.context_aspect_ratio,
        spec.min_keep,
    )


def mixing_of(recipe: Recipe, num_classes: int | None) -> BatchTransform:
    """The mixing of a recipe.

    Raises:
        ValueError: If the number of classes is missing.
    """
    mix = recipe.mix
    assert mix is not None
    if num_classes is None:
        raise ValueError(
            f"The recipe {recipe.name!r} mixes labels: `num_classes` is needed, got None."
        )
    return MixBatch(
        RandomMixupCutmix(
            num_classes,
            mix.mixup_alpha,
            mix.cutmix_alpha,
            mix.prob,
            mix.switch_prob,
            mix.label_smoothing,
        )
    )


NAMES = tuple(RECIPES)

Preset = Callable[..., BatchTransform]

simclr: Preset = partial(preset, "simclr")
simclr_cifar: Preset = partial(preset, "simclr_cifar")
moco_v2: Preset = partial(preset, "moco_v2")
moco_v3: Preset = partial(preset, "moco_v3")
byol: Preset = partial(preset, "byol")
barlow_twins: Preset = partial(preset, "barlow_twins")
vicreg: Preset = partial(preset, "vicreg")
swav: Preset = partial(preset, "swav")
dino: Preset = partial(preset, "dino")
dinov2: Preset = partial(preset, "dinov2")
lejepa: Preset = partial(preset, "lejepa")
mae: Preset = partial(preset, "mae")
ijepa: Preset = partial(preset, "ijepa")
beit: Preset = partial(preset, "beit")
deit: Preset = partial(preset, "deit")
