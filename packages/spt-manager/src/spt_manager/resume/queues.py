"""The rings of recent rows that evaluation callbacks share, for each rank its own."""

from __future__ import annotations

import lightning as pl
from spt_callbacks.queue import Ring, queues_of
from torch import Tensor


def queue_rows(trainer: pl.Trainer) -> dict[str, Tensor]:
    """The rows that each of this rank's rings holds, oldest first."""
    rows = {name: ring.newest(ring.length) for name, ring in _rings(trainer)}
    return {name: found for name, found in rows.items() if found is not None}


def restore_queue_rows(trainer: pl.Trainer, rows: dict[str, Tensor]) -> None:
    """Fill the rings that are there again."""
    device = trainer.strategy.root_device
    for name, ring in _rings(trainer):
        if name in rows:
            ring.fill(rows[name].to(device))


def _rings(trainer: pl.Trainer) -> list[tuple[str, Ring]]:
    rings = queues_of(trainer).rings
    return [(f"{i} {getattr(key, '__qualname__', key)}", rings[key]) for i, key in enumerate(rings)]
