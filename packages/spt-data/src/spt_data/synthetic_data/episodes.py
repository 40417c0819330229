"""Steps and windows of recorded episodes, such as a Minari dataset's."""

from __future__ import annotations

import bisect
import itertools
from typing import Any

import torch
import torch.utils.data

from spt_data.datasets import Dataset, Sample, Transform, row_and_view

KEYS = ("observations", "actions", "rewards", "terminations", "truncations")


class MinariStepsDataset(Dataset):
    """Windows of consecutive steps that do not cross from one episode to the next.

    Args:
        dataset: Has ``len`` and gives episodes by number, each with the five arrays of ``KEYS``
            (``observations`` may have one more entry than there are steps).
        num_steps: Steps in a window.
        transform: Called on each window.

    Raises:
        ValueError: If ``num_steps`` is not positive, or no episode is that long.
    """

    def __init__(
        self, dataset: Any, num_steps: int = 2, transform: Transform | None = None
    ) -> None:
        super().__init__(transform)
        if num_steps < 1:
            raise ValueError(f"`num_steps` must be positive, got {num_steps}.")
        self.dataset = dataset
        self.num_steps = num_steps
        lengths = [len(dataset[i].rewards) for i in range(len(dataset))]
        windows = [max(0, length - num_steps + 1) for length in lengths]
        self.ends = list(itertools.accumulate(windows))
        if not self.ends or self.ends[-1] == 0:
            raise ValueError(
                f"No episode has `num_steps` = {num_steps} steps; the longest of {len(lengths)} "
                f"has {max(lengths, default=0)}."
            )

    def __len__(self) -> int:
        """Number of windows."""
        return self.ends[-1]

    def __getitem__(self, index: int | tuple[int, int]) -> Sample:
        """The five arrays of a window, ``(num_steps, ...)``, and its number."""
        row, extra = row_and_view(index)
        if not -len(self) <= row < len(self):
            raise IndexError(f"Window {row} is out of range for {len(self)} windows.")
        row %= len(self)
        episode = bisect.bisect_right(self.ends, row)
        start = row - (self.ends[episode - 1] if episode else 0)
        steps = slice(start, start + self.num_steps)
        arrays = self.dataset[episode]
        sample = {key: torch.as_tensor(getattr(arrays, key)[steps]) for key in KEYS}
        return self.process_sample({**sample, "sample_idx": row}, **extra)


class MinariEpisodeDataset(Dataset):
    """Single steps across all episodes.

    Args:
        dataset: As for ``MinariStepsDataset``.
        transform: Called on each step.
    """

    def __init__(self, dataset: Any, transform: Transform | None = None) -> None:
        super().__init__(transform)
        self.steps = MinariStepsDataset(dataset, num_steps=1)

    def __len__(self) -> int:
        """Number of steps."""
        return len(self.steps)

    def __getitem__(self, index: int | tuple[int, int]) -> Sample:
        """The five values of a step, and its number."""
        row, extra = row_and_view(index)
        window = self.steps[row]
        sample = {key: window[key][0] for key in KEYS}
        return self.process_sample({**sample, "sample_idx": window["sample_idx"]}, **extra)
