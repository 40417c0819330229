"""Samples to a batch: one collate for single views, multi-view samples and masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate
from torchvision import tv_tensors

from spt_data._draws import keyed_draws
from spt_data._errors import keys_of
from spt_data._keys import read
from spt_data.datasets import Sample
from spt_data.masks._grid import check_patch_size, grid_of
from spt_data.masks.multiblock import check_paired, draw_blocks, indices, shared_sizes

RAGGED = tuple(
    getattr(tv_tensors, name)
    for name in ("BoundingBoxes", "KeyPoints")
    if hasattr(tv_tensors, name)
)
Range = tuple[float, float]


def collate(samples: Sequence[Any]) -> Any:
    """Torch's ``default_collate``, with boxes and key points kept as lists and errors that tell.

    Args:
        samples: Dicts with the same keys.

    Raises:
        ValueError: If the samples differ in their keys or shapes, or hold what cannot be stacked;
            it names the key and the samples.

    Example:
        >>> collate([{"image": torch.zeros(3), "label": 1}, {"image": torch.ones(3), "label": 0}])
        {'image': tensor([[0., 0., 0.],
                [1., 1., 1.]]), 'label': tensor([1, 0])}
    """
    return _collate(list(samples), "", [_id_of(sample, i) for i, sample in enumerate(samples)])


def _id_of(sample: Any, place: int) -> Any:
    if isinstance(sample, Mapping):
        views = sample.get("views")
        first = views[:1] if isinstance(views, (list, tuple)) else ()
        for part in (sample, *first, *sample.values()):
            if isinstance(part, Mapping) and "sample_idx" in part:
                return part["sample_idx"]
    return f"at place {place} of the batch"


def _collate(values: list[Any], path: str, ids: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, Mapping):
        _check_keys(values, path, ids)
        return {
            key: _collate([value[key] for value in values], f"{path}.{key}".lstrip("."), ids)
            for key in first
        }
    if isinstance(first, RAGGED):
        return values
    if isinstance(first, list) and len({len(value) for value in values}) == 1:
        return [
            _collate([value[i] for value in values], f"{path}.{i}", ids) for i in range(len(first))
        ]
    try:
        return default_collate(values)
    except (TypeError, RuntimeError) as error:
        raise ValueError(_unlike(values, path, ids)) from error


def _check_keys(values: list[Any], path: str, ids: list[Any]) -> None:
    for value, name in zip(values, ids, strict=True):
        if not isinstance(value, Mapping) or value.keys() != values[0].keys():
            raise ValueError(
                f"Samples of a batch must have the same keys{f' at {path!r}' if path else ''}: "
                f"sample {name} has {keys_of(value)}, sample {ids[0]} has {keys_of(values[0])}."
            )


def _unlike(values: list[Any], path: str, ids: list[Any]) -> str:
    kinds = [
        f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        for value in values
    ]
    other = next((i for i, kind in enumerate(kinds) if kind != kinds[0]), 0)
    told = f"sample {ids[0]} holds {kinds[0]}"
    if other:
        told += f", sample {ids[other]} holds {kinds[other]}"
    return (
        f"The samples cannot be stacked at {path!r}: {told}. Images become tensors of one shape "
        "by a crop, ToImage(rgb=True) and the like; masks of several lengths by their collator."
    )


class Collator:
    """Collate, flatten lists of images, and add similarities between the samples.

    An ``image`` that is a list of views is flattened sample-major: all views of the first sample,
    then those of the second; other fields have one entry per sample.

    Args:
        G_from: Key of a field; ``G`` is then its equality matrix ``(B, B)`` when it is 1-D and of
            integers, in the dtype of the images, else its Gram matrix.

    Raises:
        KeyError: When called, if a sample has no ``G_from``.
    """

    def __init__(self, G_from: str | None = None) -> None:
        self.G_from = G_from

    def __call__(self, samples: Sequence[Sample]) -> Sample:
        """The batch."""
        image = samples[0].get("image")
        if isinstance(image, (list, tuple)):
            flat = collate([{"image": view} for sample in samples for view in sample["image"]])
            rest = [{k: v for k, v in sample.items() if k != "image"} for sample in samples]
            batch = {**flat, **collate(rest)}
        else:
            batch = collate(samples)
        if self.G_from is not None:
            batch["G"] = self._similarity(batch)
        return dict(batch)

    def _similarity(self, batch: Sample) -> Tensor:
        field = torch.as_tensor(read(batch, str(self.G_from), "Collator"))
        image = batch.get("image")
        if field.ndim == 1 and not field.is_floating_point():
            floats = isinstance(image, Tensor) and image.is_floating_point()
            dtype = image.dtype if isinstance(image, Tensor) and floats else torch.float32
            return (field[:, None] == field).to(dtype)
        flat = field.flatten(1) if field.ndim > 1 else field[:, None]
        flat = flat if flat.is_floating_point() else flat.float()
        return flat @ flat.T


class MultiBlockCollator:
    """Collate, and draw I-JEPA's masks for the batch.

    All images share the sizes of the blocks, drawn anew for each batch; lists of patches are cut
    to the shortest of the batch. When samples hold ``mask_seed`` (see ``DrawSeed``), the masks
    follow from it: the same on any worker, and when a run is resumed.

    Args:
        patch_size: Side of a patch in pixels.
        context_scale: Range of the context's share of the patches.
        context_aspect_ratio: Range of its height over width.
        target_scales: For each of ``M`` targets.
        target_aspect_ratios: For each of ``M`` targets.
        min_keep: Patches the context keeps at least once the targets are removed.
        source: Key of the image in a sample.
        target_context: Key of the contexts, int64 ``(B, K)``, row-major and sorted.
        target_targets: Key of the list of ``M`` targets, int64 ``(B, L)``.
        seed_key: Key of the samples' seeds.
    """

    def __init__(
        self,
        patch_size: int = 16,
        context_scale: Range = (0.85, 1.0),
        context_aspect_ratio: Range = (1.0, 1.0),
        target_scales: Sequence[Range] = ((0.15, 0.2),) * 4,
        target_aspect_ratios: Sequence[Range] = ((0.75, 1.5),) * 4,
        min_keep: int = 10,
        source: str = "image",
        target_context: str = "mask_context",
        target_targets: str = "masks_target",
        seed_key: str = "mask_seed",
    ) -> None:
        check_paired(target_scales, target_aspect_ratios)
        self.patch_size = check_patch_size(patch_size)
        self.scales = (context_scale, *target_scales)
        self.aspect_ratios = (context_aspect_ratio, *target_aspect_ratios)
        self.min_keep = min_keep
        self.source = source
        self.target_context = target_context
        self.target_targets = target_targets
        self.seed_key = seed_key

    def __call__(self, samples: Sequence[Sample]) -> Sample:
        """The batch with both entries."""
        batch = dict(collate(samples))
        image = read(samples[0], self.source, type(self).__name__)
        grid = grid_of(image, self.patch_size, type(self).__name__)
        seeds = [int(sample[self.seed_key]) for sample in samples if self.seed_key in sample]
        if seeds:
            with keyed_draws(*seeds):
                contexts, targets = self.draw(grid, len(samples))
        else:
            contexts, targets = self.draw(grid, len(samples))
        batch.pop(self.seed_key, None)
        return {**batch, self.target_context: contexts, self.target_targets: targets}

    def draw(self, grid: tuple[int, int], n: int) -> tuple[Tensor, list[Tensor]]:
        """Contexts ``(n, K)`` and targets, each ``(n, L)``."""
        sizes = shared_sizes(grid, self.scales, self.aspect_ratios)
        images = [draw_blocks(grid, sizes[0], sizes[1:], self.min_keep) for _ in range(n)]
        contexts = [indices(context) for context, _ in images]
        targets = [[indices(block) for block in blocks] for _, blocks in images]
        shortest = min((len(block) for blocks in targets for block in blocks), default=0)
        columns = zip(*targets, strict=True)
        return _cut(contexts), [_cut(column, shortest) for column in columns]


def _cut(lists: Sequence[Tensor], length: int | None = None) -> Tensor:
    """Stack, cut to one length."""
    shortest = min(map(len, lists)) if length is None else length
    return torch.stack([entry[:shortest] for entry in lists])


def apply_masks(x: Tensor, *masks: Tensor) -> Tensor:
    """Gather the tokens that each mask names, mask by mask.

    Args:
        x: Tokens, shape ``(B, N, D)``.
        *masks: Indices of tokens, each int64 ``(B, K)``.

    Returns:
        ``(M * B, K, D)``: all samples under the first mask, then all under the second, as the
        official code of I-JEPA orders them.

    Raises:
        ValueError: If there is no mask or their lengths differ.

    Example:
        >>> tokens = torch.arange(6.0).view(2, 3, 1)
        >>> apply_masks(tokens, torch.tensor([[0], [2]]), torch.tensor([[1], [1]])).flatten()
        tensor([0., 5., 1., 4.])
    """
    if not masks or len({mask.shape for mask in masks}) > 1:
        raise ValueError(
            "apply_masks needs at least one mask, all of one shape (B, K), got "
            f"{[tuple(mask.shape) for mask in masks]}."
        )
    rows = torch.arange(len(x), device=x.device)[:, None]
    return torch.cat([x[rows, mask] for mask in masks])
