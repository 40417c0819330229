"""Chains of transforms, and several views from one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spt_augment.base import Batch, BatchTransform, images_of

Transform = Callable[[Batch], Batch]


class GPUCompose(BatchTransform):
    """Apply transforms one after the other.

    Args:
        transforms: Callables from batch to batch.

    Raises:
        TypeError: If an entry cannot be called.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        super().__init__()
        for position, transform in enumerate(transforms):
            if not callable(transform):
                raise TypeError(
                    f"`transforms[{position}]` must be callable, got {type(transform).__name__}."
                )
        self.transforms = nn.ModuleList([_as_module(transform) for transform in transforms])

    def transform(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Apply all in order."""
        for transform in self.transforms:
            batch = transform(batch)
        return batch


class StackedMultiView(BatchTransform):
    """Several views of each image from one chain: symmetric recipes such as SimCLR.

    The images are repeated, pass the chain once, and are split again. ``source`` leaves the
    batch; each view is a dict of its images and of every field that has one row per sample.

    Args:
        chain: From batch to batch, drawing per sample.
        n_views: Views of each image.
        source: Key of the images.
        views_key: Key of the list of views.
        label_key: A field that each view shares, if it is there. All fields with one row per
            sample are shared; the argument names the one that must not be changed by the chain.

    Raises:
        ValueError: If ``n_views`` is below 1.

    Example:
        >>> from spt_augment import GPURandomHorizontalFlip
        >>> two = StackedMultiView(GPURandomHorizontalFlip(), n_views=2)
        >>> batch = two({"image": torch.rand(4, 3, 8, 8), "label": torch.arange(4)})
        >>> len(batch["views"]), sorted(batch["views"][0])
        (2, ['image', 'label'])
    """

    def __init__(
        self,
        chain: Transform,
        n_views: int = 2,
        source: str = "image",
        views_key: str = "views",
        label_key: str = "label",
    ) -> None:
        super().__init__()
        if n_views < 1:
            raise ValueError(f"`n_views` must be >= 1, got {n_views}.")
        self.chain = _as_module(chain)
        self.n_views = n_views
        self.source = source
        self.views_key = views_key
        self.label_key = label_key

    def transform(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Fan out into views."""
        images = images_of(batch, self.source, type(self).__name__)
        rows, rest = split_rows(batch, self.source, len(images))
        tiled = {key: _tile(value, self.n_views) for key, value in rows.items()}
        tiled[self.source] = images.repeat(self.n_views, 1, 1, 1)
        out = self.chain(tiled)
        if self.label_key in tiled:
            out = {**out, self.label_key: tiled[self.label_key]}
        n = len(images)
        views = [
            {key: _part(value, i * n, n) for key, value in out.items()} for i in range(self.n_views)
        ]
        return {**rest, self.views_key: views}


class MultiView(BatchTransform):
    """One chain per view on the same images: asymmetric recipes such as BYOL.

    Args:
        chains: One chain per view; sizes may differ.
        source: Key of the images.
        views_key: Key of the list of views.
        label_key: A field that each view shares, if it is there.

    Raises:
        ValueError: If there is no chain.
    """

    def __init__(
        self,
        chains: Sequence[Transform],
        source: str = "image",
        views_key: str = "views",
        label_key: str = "label",
    ) -> None:
        super().__init__()
        if not chains:
            raise ValueError("`chains` must hold at least one chain, got none.")
        self.chains = nn.ModuleList([_as_module(chain) for chain in chains])
        self.source = source
        self.views_key = views_key
        self.label_key = label_key

    def transform(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Fan out into views."""
        images = images_of(batch, self.source, type(self).__name__)
        rows, rest = split_rows(batch, self.source, len(images))
        views = [chain({**rows, self.source: images}) for chain in self.chains]
        if self.label_key in rows:
            views = [{**view, self.label_key: rows[self.label_key]} for view in views]
        return {**rest, self.views_key: views}


class _Function(nn.Module):
    """A plain function as a module, so that chains hold modules only."""

    def __init__(self, function: Transform) -> None:
        super().__init__()
        self.function = function

    def forward(self, batch: Batch) -> Batch:
        """Call it."""
        return self.function(batch)


def _as_module(transform: Transform) -> nn.Module:
    return transform if isinstance(transform, nn.Module) else _Function(transform)


def split_rows(batch: Batch, source: str, n: int) -> tuple[Batch, Batch]:
    """The fields with one row per sample, and the others, without the images."""
    rows: Batch = {}
    rest: Batch = {}
    for key, value in batch.items():
        if key != source:
            (rows if _is_rows(value, n) else rest)[key] = value
    return rows, rest


def _is_rows(value: Any, n: int) -> bool:
    if isinstance(value, Tensor):
        return value.ndim > 0 and len(value) == n
    return isinstance(value, list) and len(value) == n


def _tile(value: Any, times: int) -> Any:
    return torch.cat([value] * times) if isinstance(value, Tensor) else value * times


def _part(value: Any, start: int, n: int) -> Any:
    return value[start : start + n] if isinstance(value, (Tensor, list)) else value
