"""The random generators that loaders and samplers own, beside the global one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch import Tensor

PARTS = ("sampler", "batch_sampler", "_sampler")


def generator_states(combined: CombinedLoader | None) -> list[Tensor]:
    """Where the generators of these loaders are, in a fixed order."""
    return [generator.get_state().clone() for generator in _generators(combined)]


def set_generator_states(combined: CombinedLoader | None, states: Sequence[Tensor]) -> None:
    """Put the generators there; nothing happens if they are others than those of the states."""
    generators = list(_generators(combined))
    if len(generators) == len(states):
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state.cpu())


@contextmanager
def starting_from(combined: CombinedLoader | None, states: Sequence[Tensor]) -> Iterator[None]:
    """Let the loaders start from these states inside the block.

    A loader with a state starts its sampler twice, the first time in vain. A sampler that
    Lightning has wrapped for several ranks draws each time, so it is put back before each.
    """
    set_generator_states(combined, states)
    wrapped = [part for part in _wrapped_samplers(combined) if hasattr(part, "reset")]

    def put_back_first(reset: Callable[[], None]) -> Callable[[], None]:
        def again() -> None:
            set_generator_states(combined, states)
            reset()

        return again

    for part in wrapped:
        part.reset = put_back_first(part.reset)
    try:
        yield
    finally:
        for part in wrapped:
            del part.reset


def _wrapped_samplers(combined: CombinedLoader | None) -> Iterator[Any]:
    for loader in combined.flattened if combined is not None else []:
        for sampler in (loader.sampler, getattr(loader.batch_sampler, "sampler", None)):
            if isinstance(sampler, DistributedSamplerWrapper):
                yield sampler.dataset
                break


def _generators(combined: CombinedLoader | None) -> Iterator[torch.Generator]:
    known: set[int] = set()
    for loader in combined.flattened if combined is not None else []:
        yield from _of(loader, known, depth=4)


def _of(owner: Any, known: set[int], depth: int) -> Iterator[torch.Generator]:
    """The generators of a loader or sampler, and of the samplers inside it."""
    attributes = getattr(owner, "__dict__", {})
    for value in attributes.values():
        if isinstance(value, torch.Generator) and id(value) not in known:
            known.add(id(value))
            yield value
    inside = [attributes.get(name) for name in PARTS]
    if "num_replicas" in attributes:  # Lightning wraps a sampler as a distributed one's data set
        inside.append(attributes.get("dataset"))
    for part in inside if depth else []:
        if part is not None and id(part) not in known:
            known.add(id(part))
            yield from _of(part, known, depth - 1)
