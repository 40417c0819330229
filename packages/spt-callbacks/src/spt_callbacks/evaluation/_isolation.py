"""Computing beside a run without leaving a trace in it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from spt_callbacks.distributed import rank


@contextmanager
def isolated(device: torch.device, name: str, step: int) -> Iterator[None]:
    """Compute in full precision, with a random stream that is nobody else's.

    The stream depends on the run's seed, the name, the rank and the step, so that a resumed run
    draws what it would have drawn; the run's own random state is left as it was found.

    Args:
        device: Whose autocast is switched off and whose random state is kept.
        name: Of what computes here.
        step: Number of the computation.
    """
    generators = [torch.default_generator, *_of_device(device)]
    states = [generator.get_state() for generator in generators]
    seed = torch.initial_seed() ^ zlib.crc32(f"{name}/{rank()}/{step}".encode())
    try:
        for generator in generators:
            generator.manual_seed(seed % 2**63)
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _of_device(device: torch.device) -> list[torch.Generator]:
    if device.type != "cuda":
        return []
    index = torch.cuda.current_device() if device.index is None else device.index
    return [torch.cuda.default_generators[index]]
