"""The loader that a DataModule builds: resumable, and it tells the dataset which epoch it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from loguru import logger
from torch.utils.data import IterableDataset
from torchdata.stateful_dataloader import StatefulDataLoader

from spt_data._ranks import rank_and_world
from spt_data.collate import collate
from spt_data.datasets import DatasetMixin, new_clock
from spt_data.samplers import RepeatedRandomSampler
from spt_data.subset import Subset

KEY = "spt_data"
FINISHED = "_iterator_finished"  # torchdata's own key
RANKS = "spt_data_ranks"


class Loader(StatefulDataLoader):
    """A ``StatefulDataLoader`` that counts its epochs and passes them to the dataset.

    A dataset with ``set_epoch(epoch, seed)`` then draws each sample's augmentation from
    ``(seed, epoch, row, view)``: the same whatever the number of workers, new in each epoch.

    Samples that the dataset skipped are reported at the end of the epoch.

    Args:
        *args: As for ``torch.utils.data.DataLoader``.
        seed: Of the augmentation; the process's torch seed by default. It is part of the state.
        **kwargs: As for ``torch.utils.data.DataLoader``; ``collate_fn`` is ``spt_data.collate`` by
            default, and torch's conversion of single samples with ``batch_size=None``.

    Raises:
        ValueError: If the dataset is empty, or a batch would cut through the views of a row.
    """

    def __init__(self, *args: Any, seed: int | None = None, **kwargs: Any) -> None:
        check_not_empty(args[0] if args else kwargs.get("dataset"))
        size = args[1] if len(args) > 1 else kwargs.get("batch_size", 1)
        batched = size is not None or kwargs.get("batch_sampler") is not None
        if batched and len(args) < 7 and kwargs.get("collate_fn") is None:
            kwargs["collate_fn"] = collate
        super().__init__(*args, **kwargs)
        check_views(self.sampler, self.batch_size)
        tell_of_hidden(self.dataset)
        self.seed = torch.initial_seed() % 2**63 if seed is None else seed
        self.epoch = 0
        self._clock = new_clock()
        self._begun = False
        self._resumes = False
        self._trainer: Any = None
        self._before: dict[str, Any] | None = None

    def follow(self, trainer: Any) -> None:
        """Let states stand where a Lightning Trainer is, not where it has read ahead to."""
        self._trainer = trainer

    def __iter__(self) -> Iterator[Any]:
        """Batches of the next epoch, or of what is left of the one that was resumed."""
        if self._begun and not self._resumes:
            self.epoch += 1
        self._begun, self._resumes = True, False
        self._before = None
        self._tell()
        skipped = getattr(self.dataset, "n_skipped", 0)  # workers start below, and skip at once
        with self._own_clock():
            batches = super().__iter__()
        return self._given(batches, skipped)

    def _given(self, batches: Iterator[Any], skipped: int) -> Iterator[Any]:
        """The batches; beside a Trainer, the state before each stays known until the next one."""
        while True:
            before = None if self._trainer is None else super().state_dict()
            try:
                with self._own_clock():
                    batch = next(batches)
            except StopIteration:
                break
            self._before = before
            yield batch
        new = getattr(self.dataset, "n_skipped", 0) - skipped
        if new:
            logger.warning(f"{new} samples were skipped in this epoch: they cannot be decoded.")

    def _tell(self) -> None:
        for name, arguments in (("set_epoch", (self.epoch, self.seed)), ("tell_progress", ())):
            method = getattr(self.dataset, name, None)
            if method is not None:
                with self._own_clock():
                    method(*arguments)

    @contextmanager
    def _own_clock(self) -> Iterator[None]:
        """Inside, the data set reads the epoch and seed of this loader.

        Parts of one data set, and several loaders, share its object. Workers that start inside
        keep the memory of the clock that they find.
        """
        owner: Any = self.dataset
        while isinstance(owner, Subset):
            owner = owner.dataset
        if not isinstance(owner, DatasetMixin):
            yield
            return
        before, owner._clock = owner._clock, self._clock
        try:
            yield
        finally:
            owner._clock = before

    def state_dict(self) -> dict[str, Any]:
        """Position in the epoch, the epoch, and the seed; of streams, for each rank."""
        if not self._begun:
            self._tell()  # the state starts the workers, and they read ahead
        ahead, over = _reading_of(self._trainer)
        with self._own_clock():
            state = super().state_dict()
        if ahead and self._before is not None and not state[FINISHED]:
            state = self._before
        own = {"epoch": self.epoch, "seed": self.seed}
        state = {**state, FINISHED: state[FINISHED] or over, KEY: own}
        world = rank_and_world()[1]
        if world == 1 or not isinstance(self.dataset, IterableDataset):
            return state  # the samplers of all ranks stand at the same place
        states: list[Any] = [None] * world
        dist.all_gather_object(states, state)
        return {RANKS: states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state.

        Raises:
            ValueError: If it is the state of a stream on another number of ranks, or of a loader
                with workers when this one has none, or the reverse.
        """
        state = _state_of_this_rank(dict(state_dict))
        _check_workers(state, self.num_workers)
        own = state.pop(KEY)
        self.epoch, self.seed = own["epoch"], own["seed"]
        state[FINISHED] = state[FINISHED] or self._is_over(state)
        self._begun, self._resumes = True, not state[FINISHED]
        super().load_state_dict(state)

    def _is_over(self, state: dict[str, Any]) -> bool:
        """Whether all batches were given, though nobody asked for one more."""
        if isinstance(self.dataset, IterableDataset):
            return False
        if "_num_yielded" in state:
            return bool(state["_num_yielded"] >= len(self))
        steps = state["_snapshot"]["_snapshot_step"] + state["_steps_since_snapshot"]
        return bool(steps >= len(self))  # several workers


def _reading_of(trainer: Any) -> tuple[int, bool]:
    """Batches that a Trainer has fetched and not begun, and whether its epoch has no more."""
    if trainer is None:
        return 0, False
    ahead = len(getattr(getattr(trainer.fit_loop, "_data_fetcher", None), "batches", ()))
    progress = trainer.fit_loop.epoch_loop.batch_progress
    limited = progress.current.ready >= trainer.num_training_batches
    return ahead, bool(progress.is_last_batch or limited)


def _state_of_this_rank(state: dict[str, Any]) -> dict[str, Any]:
    rank, world = rank_and_world()
    states = state.get(RANKS)
    if states is None:
        return state
    if len(states) != world:
        raise ValueError(
            f"The state of this stream is of {len(states)} ranks, and there are {world}: its rows "
            "are shared out differently. Resume on as many ranks, or begin the epoch anew."
        )
    return dict(states[rank])


def _check_workers(state: dict[str, Any], num_workers: int) -> None:
    with_workers = "_snapshot" in state
    if with_workers != (num_workers > 0):
        before = "with workers" if with_workers else "without workers"
        raise ValueError(
            f"The state is of a loader {before}, and this one has num_workers={num_workers}; "
            f"resume with num_workers {'> 0' if with_workers else '= 0'}, or begin the epoch anew."
        )


def tell_of_hidden(dataset: Any) -> None:
    """Warn of a data set that is wrapped by one which does not pass the epoch on to it."""
    if hasattr(dataset, "set_epoch"):
        return
    pending, seen = [dataset], set()
    while pending:
        part = pending.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, DatasetMixin) and (part.transform or part.on_error == "skip"):
            logger.warning(
                f"{type(dataset).__name__} hides {type(part).__name__} from its loader: the "
                "augmentation is drawn from the process's generator and does not repeat when a "
                "run is resumed, and `on_error='skip'` may not act. Use spt_data.Subset for "
                "parts; wrap a concatenation of plain data sets in FromDictDataset or "
                "FromTorchDataset, with the transform there."
            )
            return
        inner, several = getattr(part, "dataset", None), getattr(part, "datasets", None)
        pending += [] if inner is None else [inner]
        pending += several if isinstance(several, (list, tuple)) else []


def check_not_empty(dataset: Any) -> None:
    """Refuse a dataset without rows.

    Raises:
        ValueError: If there are none.
    """
    if dataset is None or isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        return
    if len(dataset) == 0:
        raise ValueError(
            f"The dataset of this split is empty: {type(dataset).__name__} has no rows. Check the "
            "name of the split and its filters."
        )


def check_views(sampler: Any, batch_size: int | None) -> None:
    """Refuse batches that cut through the views of a row.

    Raises:
        ValueError: If the batch size is no multiple of the sampler's number of views.
    """
    if not isinstance(sampler, RepeatedRandomSampler) or batch_size is None:
        return
    if batch_size % sampler.n_views:
        raise ValueError(
            f"`batch_size` {batch_size} is no multiple of the sampler's `n_views` = "
            f"{sampler.n_views}: a batch would hold some views of a row and not the others."
        )
