"""From a loader to steps: groups of micro-batches on their devices, and where the loader then is."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from spt_jax.batches import WEIGHT, arrays_of, check_alike, filled, parts_of
from spt_jax.placement import Placement


@dataclass(frozen=True)
class Item:
    """What a training step needs.

    Attributes:
        batch: Arrays on their devices; stacked micro-batches if steps accumulate.
        loaded: The loader's own (last) batch, with what is not an array.
        batches: The loader's batches of this epoch so far, this one included.
        loader: The loader's own state after this batch, if it has one.
    """

    batch: Any
    loaded: Any
    batches: int
    loader: Any


def training_items(
    loader: Iterable[Any],
    first: dict[str, Any],
    rows: int,
    placement: Placement,
    *,
    accumulate: int = 1,
    seen: int = 0,
    limit: int | None = None,
) -> Iterator[Item]:
    """Steps of one epoch.

    A ragged last batch is completed with rows of the run's first batch, and a short last group
    with weightless micro-batches, so all steps have one shape.

    Args:
        loader: Batches. Its place must have been restored if it has a state of its own.
        first: Arrays of the run's first batch.
        rows: Rows of every batch.
        placement: Where batches go.
        accumulate: Micro-batches of a step.
        seen: Batches of this epoch that earlier steps have used.
        limit: Batches of an epoch at most.
    """
    resumable = hasattr(loader, "state_dict")
    skip = 0 if resumable else seen
    number = seen - skip
    group: list[dict[str, Any]] = []
    loaded: Any = None
    batches = iter(loader)
    while limit is None or number < limit:
        loaded = next(batches, END)
        if loaded is END:
            break
        number += 1
        if number <= skip:
            continue
        group.append(filled(arrays_of(loaded), rows, first))
        if len(group) == accumulate:
            yield _item(group, loaded, number, loader, placement, accumulate)
            group = []
    if group:
        idle = {**group[-1], WEIGHT: np.zeros(rows, np.float32)}
        group += [idle] * (accumulate - len(group))
        yield _item(group, loaded, number, loader, placement, accumulate)


END: Any = object()


def _item(
    group: list[dict[str, Any]],
    loaded: Any,
    number: int,
    loader: Any,
    placement: Placement,
    accumulate: int,
) -> Item:
    batch = group[0] if accumulate == 1 else jax.tree.map(lambda *x: np.stack(x), *group)
    place = loader.state_dict() if hasattr(loader, "state_dict") else None
    return Item(placement.batch(batch, stacked=accumulate > 1), loaded, number, place)


def evaluation_items(
    loader: Iterable[Any], rows: int, placement: Placement, limit: int | None = None
) -> Iterator[Item]:
    """Batches to evaluate, cut and filled to one number of rows."""
    model = None
    for number, loaded in enumerate(itertools.islice(loader, limit), start=1):
        arrays = arrays_of(loaded)
        model = arrays if model is None else model
        check_alike(arrays, model)
        for part in parts_of(arrays, rows):
            yield Item(placement.batch(part), loaded, number, None)


def batches_of(loader: Any, limit: int | float | None) -> int | None:
    """Batches of an epoch, as far as the loader tells.

    Args:
        loader: The loader.
        limit: A number of batches, or a fraction below 1 of them.

    Raises:
        ValueError: If a fraction is asked of a loader without a length.
    """
    length = length_of(loader)
    if limit is None or (limit == 1.0 and isinstance(limit, float)):
        return length
    if isinstance(limit, float):
        if length is None:
            raise ValueError(
                f"A limit of {limit} of the batches needs a loader with a length; give a number."
            )
        return max(int(length * limit), 1)
    return limit if length is None else min(limit, length)


def length_of(loader: Any) -> int | None:
    """Batches of a loader; ``None`` if it does not know, as torch's over an iterable data set."""
    try:
        return len(loader)
    except TypeError:
        return None


def check_limit(name: str, limit: int | float | None) -> None:
    """Refuse a limit that is neither a number of batches nor a fraction of them.

    Raises:
        ValueError: If it is out of range.
    """
    fine = limit is None or (0 < limit <= 1 if isinstance(limit, float) else limit >= 1)
    if not fine:
        raise ValueError(
            f"`{name}` must be a number of batches >= 1, a fraction in (0, 1] or None, got {limit}."
        )
