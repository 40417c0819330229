"""The loaders of a run: those with a state go on by it, the others are moved forward."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch.utils.data import IterableDataset
from torch.utils.data.dataloader import _SingleProcessDataLoaderIter
from torchdata.stateful_dataloader import StatefulDataLoader

FINISHED = "_iterator_finished"
"""Where torchdata's loader says that its epoch is over."""


def is_stateful(loader: Any) -> bool:
    """Whether a loader can say where it is."""
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")


def load_states(combined: CombinedLoader, states: list[Any], *, between: bool = False) -> None:
    """Give each loader with a state its own; the order is that of the checkpoint.

    Args:
        combined: The loaders.
        states: What they were at the checkpoint.
        between: The epoch was over, though a loader whose length is known was not asked for more:
            it takes up the state of its sampler and data set, and begins anew when it is started.
    """
    stateful = [loader for loader in combined.flattened if is_stateful(loader)]
    if not states or len(stateful) != len(states):
        return
    for loader, state in zip(stateful, states, strict=True):
        if between and FINISHED in state and isinstance(loader, StatefulDataLoader):
            loader.load_state_dict({**state, FINISHED: True})
            # takes up the state; a subclass that counts its epochs must not count this start
            StatefulDataLoader.__iter__(loader)
        else:
            loader.load_state_dict(state)


def fast_forward(fetcher: Any, batches: int) -> None:
    """Move the loaders that have no state past the batches that were trained on.

    The loaders were started from the random state they had then, so the same samples are left
    out, and with workers each worker's random state is as it was.

    Args:
        fetcher: Lightning's data fetcher, started.
        batches: How many batches to leave out.
    """
    combined = fetcher.combined_loader
    iterators = combined._iterator.iterators
    ahead = len(getattr(fetcher, "batches", []))  # fetched already, to see the end coming
    moved = [i for i, loader in enumerate(combined.flattened) if not is_stateful(loader)]
    for i in moved:
        for _ in range(batches - ahead):
            try:
                _leave_out(iterators[i])
            except StopIteration:  # a shorter loader of several begins again
                iterators[i] = iter(combined.flattened[i])
                _leave_out(iterators[i])
    for _ in range(ahead if len(moved) == len(iterators) else 0):
        fetcher.batches.pop(0)
        try:
            fetcher.batches.append(next(combined))
        except StopIteration:  # the last batch was trained on, and its validation is to come
            fetcher.done = True


def fetched_ahead(fetcher: Any, combined: CombinedLoader | None) -> list[Any]:
    """Batches that Lightning holds already, to see the end of a loader without a length coming.

    The states of the loaders are past them, so they belong to a checkpoint; loaders without a
    state are moved forward instead.
    """
    if combined is None or not all(is_stateful(loader) for loader in combined.flattened):
        return []
    return list(getattr(fetcher, "batches", []))


def put_ahead(fetcher: Any, batches: list[Any]) -> None:
    """Give them back, before what was fetched when the loaders were started again."""
    if batches:
        fetcher.batches[:0] = batches


def _leave_out(iterator: Any) -> None:
    by_index = not isinstance(getattr(iterator, "_dataset", None), IterableDataset)
    if isinstance(iterator, _SingleProcessDataLoaderIter) and by_index:
        iterator._next_index()  # nothing needs to be loaded
        iterator._num_yielded += 1
    else:
        next(iterator)
