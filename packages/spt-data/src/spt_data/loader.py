"""The loader that a DataModule builds: resumable, and it tells the dataset which epoch it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import IterableDataset
from torchdata.stateful_dataloader import StatefulDataLoader

KEY = "spt_data"
FINISHED = "_iterator_finished"  # torchdata's own key


class Loader(StatefulDataLoader):
    """A ``StatefulDataLoader`` that counts its epochs and passes them to the dataset.

    A dataset with ``set_epoch(epoch, seed)`` then draws each sample's augmentation from
    ``(seed, epoch, row, view)``: the same whatever the number of workers, new in each epoch.

    Args:
        *args: As for ``torch.utils.data.DataLoader``.
        seed: Of the augmentation; the process's torch seed by default. It is part of the state.
        **kwargs: As for ``torch.utils.data.DataLoader``.
    """

    def __init__(self, *args: Any, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
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
