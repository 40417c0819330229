"""The shapes of a batch, and the mapping that a forward function returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

Batch = Mapping[str, Any]
State = dict[str, Any]
Stage = Literal["fit", "validate", "test", "predict"]


def views_of(batch: Any) -> list[Batch]:
    """The views of a batch: a list, the list under ``views``, named views, or the one image.

    Args:
        batch: A list of view dicts; a dict with ``views``, a list or named; a dict with ``image``; or a dict whose
            values are view dicts, in their order.

    Raises:
        ValueError: If there is no view in it.
    """
    if isinstance(batch, (list, tuple)):
        views = list(batch)
    elif isinstance(batch, Mapping) and "views" in batch:
        held = batch["views"]
        views = list(held.values() if isinstance(held, Mapping) else held)
    elif isinstance(batch, Mapping) and "image" in batch:
        views = [batch]
    elif isinstance(batch, Mapping):
        views = [value for value in batch.values() if isinstance(value, Mapping)]
    else:
        views = []
    if not views or not all(isinstance(view, Mapping) and "image" in view for view in views):
        held = sorted(map(str, batch)) if isinstance(batch, Mapping) else type(batch).__name__
        raise ValueError(
            f"The batch has no views: it needs 'image', 'views' or named views with an 'image' each; "
            f"got {held}."
        )
    return views


def rows_in(batch: Any) -> int | None:
    """Rows of the first tensor in a batch, however nested; ``None`` if there is none.

    Example:
        >>> rows_in({"text": ["a", "b"], "views": [{"image": torch.zeros(2, 3)}]})
        2
    """
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else None
    parts: Any = ()
    if isinstance(batch, Mapping):
        parts = batch.values()
    elif isinstance(batch, (list, tuple)):
        parts = batch
    found = (rows_in(part) for part in parts)
    return next((rows for rows in found if rows is not None), None)


def two_views_of(batch: Any, caller: str) -> list[Batch]:
    """The two views of a training batch.

    Raises:
        ValueError: If there is another number of views.
    """
    views = views_of(batch)
    if len(views) != 2:
        raise ValueError(
            f"{caller} trains on 2 views, got {len(views)}. Make them with MultiViewTransform in the "
            "data set or with StackedMultiView as its `gpu_transform`."
        )
    return views


def images_of(views: list[Batch]) -> Tensor:
    """The images of all views, one view after the other.

    Raises:
        ValueError: If views differ in channels or size.
    """
    shapes = {tuple(view["image"].shape[1:]) for view in views}
    if len(shapes) > 1:
        raise ValueError(f"The images of all views must be of one shape, got {sorted(shapes)}.")
    return torch.cat([view["image"] for view in views])


def labels_of(batch: Any, views: list[Batch]) -> State:
    """``{"label": ...}`` with one row per image of all views, or nothing without labels.

    Raises:
        ValueError: If some views have labels and some have none.
    """
    labelled = ["label" in view for view in views]
    if any(labelled) and not all(labelled):
        raise ValueError(
            f"Either all views have a 'label' or none, got it in {sum(labelled)} of {len(views)}."
        )
    if all(labelled):
        return {"label": torch.cat([view["label"] for view in views])}
    if isinstance(batch, Mapping) and "label" in batch:
        return {"label": torch.cat([batch["label"]] * len(views))}
    return {}


def crops_of(batch: Any, caller: str) -> tuple[list[Batch], list[Batch]]:
    """Large and small crops of a training batch.

    Args:
        batch: Named views, at the top or under ``views``, whose names begin with ``global`` and
            ``local``.
        caller: Who asks, for the message.

    Raises:
        ValueError: If views are not named so, or there is no large one.
    """
    named = batch.get("views", batch) if isinstance(batch, Mapping) else {}
    if not isinstance(named, Mapping):
        named = {}
    views = {str(name): view for name, view in named.items() if isinstance(view, Mapping)}
    large = [view for name, view in views.items() if name.startswith("global")]
    small = [view for name, view in views.items() if name.startswith("local")]
    if not large:
        raise ValueError(
            f"{caller} trains on named crops 'global...' and 'local...', at least one of them "
            f"'global...'; got {sorted(views) or type(batch).__name__}. A multi-view transform makes "
            "them from a dict of transforms."
        )
    return large, small


def encode_crops(encode: Callable[[Tensor], Any], crops: list[Batch]) -> list[Any]:
    """Encode crops, those of one size together.

    Args:
        encode: From images ``(M, C, H, W)`` to a tensor ``(M, ...)``.
        crops: Each with ``image`` ``(N, C, H, W)``.

    Returns:
        What came out for each crop, in their order.
    """
    sizes: dict[Any, list[int]] = {}
    for index, crop in enumerate(crops):
        sizes.setdefault(tuple(crop["image"].shape[1:]), []).append(index)
    outputs: list[Any] = [None] * len(crops)
    for indices in sizes.values():
        encoded = encode(torch.cat([crops[index]["image"] for index in indices]))
        for index, part in zip(indices, encoded.chunk(len(indices)), strict=True):
            outputs[index] = part
    return outputs


def embed(encode: Callable[[Tensor], Tensor], batch: Any) -> State:
    """``embedding`` of all views, those of one size encoded together, and ``label``."""
    views = views_of(batch)
    return {"embedding": torch.cat(encode_crops(encode, views)), **labels_of(batch, views)}
