"""The loader that a DataModule builds: resumable, and it tells the dataset which epoch it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import IterableDataset
from torchdata.stateful_dataloader import StatefulDataLoader

from spt_data.collate import collate
from spt_data.samplers import RepeatedRandomSampler

KEY = "spt_data"
FINISHED = "_iterator_finished"  # torchdata's own key


class Loader(StatefulDataLoader):
    """A ``StatefulDataLoader`` that counts its epochs and passes them to the dataset.

    A dataset with ``set_epoch(epoch, seed)`` then draws each sample's augmentation from
    ``(seed, epoch, row, view)``: the same whatever the number of workers, new in each epoch.

    Samples that the dataset skipped are reported at the end of the epoch.

    Args:
        *args: As for ``torch.utils.data.DataLoader``.
        seed: Of the augmentation; the process's torch seed by default. It is part of the state.
        **kwargs: As for ``torch.utils.data.DataLoader``; ``collate_fn`` is ``spt_data.collate`` by
            default.

    Raises:
        ValueError: If the dataset is empty, or a batch would cut through the views of a row.
    """

    def __init__(self, *args: Any, seed: int | None = None, **kwargs: Any) -> None:
        check_not_empty(args[0] if args else kwargs.get("dataset"))
        if len(args) < 7 and kwargs.get("collate_fn") is None:
            kwargs["collate_fn"] = collate
        super().__init__(*args, **kwargs)
        check_views(self.sampler, self.batch_size)
        self.seed = torch.initial_seed() % 2**63 if seed is None else seed
        self.epoch = 0
        self._begun = False
        self._resumes = False

    def __iter__(self) -> Iterator[Any]:
        """Batches of the next epoch, or of what is left of the one that was resumed."""
        if self._begun and not self._resumes:
            self.epoch += 1
        self._begun, self._resumes = True, False
        self._tell()
        return super().__iter__()

    def _tell(self) -> None:
        set_epoch = getattr(self.dataset, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(self.epoch, self.seed)

    def state_dict(self) -> dict[str, Any]:
        """Position in the epoch, the epoch, and the seed."""
        if not self._begun:
            self._tell()  # the state starts the workers, and they read ahead
        own = {"epoch": self.epoch, "seed": self.seed}
        return {**super().state_dict(), KEY: own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state."""
        state = dict(state_dict)
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
