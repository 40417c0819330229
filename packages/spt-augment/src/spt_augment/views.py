"""Several views from one batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spt_augment.base import Batch, BatchTransform, images_of
from spt_augment.compose import GPUCompose, as_module

Transform = Callable[[Batch], Batch]


class StackedMultiView(BatchTransform):
    """Several views of each image from one chain: symmetric recipes such as SimCLR.

    All views pass the chain together and are split again; a :class:`GPUCompose` that begins with
    a crop cuts them from the one batch, without copies of it. ``source`` leaves the batch, all else
    stays; each view is a dict of its images, of what was drawn for it, and of every field that has
    one row per sample.

    Args:
        chain: From batch to batch, drawing per sample.
        n_views: Views of each image.
        source: Key of the images.
        views_key: Key of the list of views.
        label_key: A field that each view has if the batch has it, also where the chain drops it.

    Raises:
        ValueError: If ``n_views`` is below 1.

    Example:
        >>> from spt_augment import GPURandomHorizontalFlip
        >>> two = StackedMultiView(GPURandomHorizontalFlip(), n_views=2)
        >>> batch = two({"image": torch.rand(4, 3, 8, 8), "label": torch.arange(4)})
        >>> len(batch["views"]), sorted(batch["views"][0])
        (2, ['GPURandomHorizontalFlip', 'image', 'label'])
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
        self.chain = as_module(chain)
        self.n_views = n_views
        self.source = source
        self.views_key = views_key
        self.label_key = label_key

    def transform(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Fan out into views."""
        images = images_of(batch, self.source, type(self).__name__)
        rest = {key: value for key, value in batch.items() if key != self.source}
        rows = {key: value for key, value in rest.items() if _is_rows(value, len(images))}
        tiled = {key: _tile(value, self.n_views) for key, value in rows.items()}
        if isinstance(self.chain, GPUCompose) and self.chain.begins_with_images_of(self.source):
            # the crop cuts every view from the one batch
            once = {**tiled, self.source: images}
            out = self.chain.transform_copies(once, generator, self.n_views)
        else:
            out = self.chain({**tiled, self.source: images.repeat(self.n_views, 1, 1, 1)})
        if self.label_key in tiled:
            out = {self.label_key: tiled[self.label_key], **out}
        n = len(images)
        views = [_part(out, i * n, n, n * self.n_views) for i in range(self.n_views)]
        return {**rest, self.views_key: views}


class MultiView(BatchTransform):
    """One chain per view on the same images: asymmetric recipes such as BYOL, and multi-crop.

    Args:
        chains: One chain per view; sizes may differ. A mapping from names to chains puts each
            view under its name (``global_1``, ``local_1``) instead of in a list. A
            :class:`StackedMultiView` in it stands for several views, ``local`` for ``local_1``,
            ``local_2`` and so on.
        source: Key of the images.
        views_key: Key of the list of views, beside which all else stays. Beside named views stays
            what has no row per sample.
        label_key: A field that each view has if the batch has it, also where a chain drops it.

    Raises:
        ValueError: If there is no chain.
    """

    def __init__(
        self,
        chains: Sequence[Transform] | Mapping[str, Transform],
        source: str = "image",
        views_key: str = "views",
        label_key: str = "label",
    ) -> None:
        super().__init__()
        if not chains:
            raise ValueError("`chains` must hold at least one chain, got none.")
        self.names = list(chains) if isinstance(chains, Mapping) else None
        items = chains.values() if isinstance(chains, Mapping) else chains
        self.chains = nn.ModuleList([as_module(chain) for chain in items])
        self.source = source
        self.views_key = views_key
        self.label_key = label_key

    def transform(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Fan out into views."""
        images = images_of(batch, self.source, type(self).__name__)
        rest = {key: value for key, value in batch.items() if key != self.source}
        rows = {key: value for key, value in rest.items() if _is_rows(value, len(images))}
        groups = [self._views(chain, {**rows, self.source: images}) for chain in self.chains]
        if self.names is None:
            return {**rest, self.views_key: [view for group in groups for view in group]}
        named = zip(self.names, groups, strict=True)
        rest = {key: value for key, value in rest.items() if key not in rows}  # as on the processor
        return {**rest, **{key: view for name, group in named for key, view in _keys(name, group)}}

    def _views(self, chain: nn.Module, batch: Batch) -> list[Batch]:
        """The view of a chain, or those of a stack."""
        out = chain(batch)
        views = out[chain.views_key] if isinstance(chain, StackedMultiView) else [out]
        if self.label_key in batch:
            views = [{self.label_key: batch[self.label_key], **view} for view in views]
        return list(views)


def _keys(name: str, views: Sequence[Batch]) -> list[tuple[str, Batch]]:
    """A single view under its name, several with a number."""
    if len(views) == 1:
        return [(name, views[0])]
    return [(f"{name}_{i + 1}", view) for i, view in enumerate(views)]


def _is_rows(value: Any, n: int) -> bool:
    """Whether there is one row per sample, in each entry of a dict too."""
    if isinstance(value, dict):
        return bool(value) and all(_is_rows(item, n) for item in value.values())
    if isinstance(value, Tensor):
        return value.ndim > 0 and len(value) == n
    return isinstance(value, list) and len(value) == n


def _tile(value: Any, times: int) -> Any:
    if isinstance(value, dict):
        return {key: _tile(item, times) for key, item in value.items()}
    return torch.cat([value] * times) if isinstance(value, Tensor) else value * times


def _part(value: Any, start: int, n: int, total: int) -> Any:
    """One view's rows of ``total``, in records and in lists of tensors too; others stay whole."""
    if isinstance(value, dict):
        return {key: _part(item, start, n, total) for key, item in value.items()}
    if isinstance(value, list) and any(isinstance(item, Tensor) and item.ndim for item in value):
        return [_part(item, start, n, total) for item in value]  # masks: a tensor per block
    return value[start : start + n] if _is_rows(value, total) else value
