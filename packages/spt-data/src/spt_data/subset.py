"""Parts of a dataset."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.utils.data

from spt_data._draws import Row, copy_of
from spt_data.datasets import Dataset, Sample, row_and_view


class Subset(torch.utils.data.Dataset[Sample]):
    """Some rows of a dataset; attributes it lacks are those of the dataset.

    Args:
        dataset: Any map-style dataset.
        indices: Rows to keep, in order.

    Raises:
        IndexError: If an index is out of range.
    """

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = [int(index) for index in indices]
        wrong = [i for i in self.indices if not -len(dataset) <= i < len(dataset)]
        if wrong:
            raise IndexError(
                f"`indices` must be rows of a dataset of {len(dataset)}, got {wrong[:5]}."
            )

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.indices)

    @property
    def targets(self) -> list[Any]:
        """Classes of its own rows, when the dataset has ``targets``."""
        targets = self.dataset.targets
        return [targets[index] for index in self.indices]

    def __getitem__(self, index: int | tuple[int, int]) -> Sample:
        """One sample of the underlying dataset; a ``(row, view)`` pair also sets ``view_idx``."""
        row, extra = row_and_view(self._inner(index))
        if extra and isinstance(self.dataset, (Dataset, Subset)):
            return self.dataset[(row, extra["view_idx"])]
        sample: Sample = self.dataset[row]
        return {**sample, **extra} if extra else sample

    def __getitems__(self, indices: Sequence[int | tuple[int, int]]) -> list[Sample]:
        """Several samples, read together when the dataset can."""
        if not isinstance(self.dataset, (Dataset, Subset)):
            return [self[index] for index in indices]
        return self.dataset.__getitems__([self._inner(index) for index in indices])

    def _inner(self, index: Any) -> Any:
        if isinstance(index, tuple):
            return self._inner(index[0]), index[1]
        return Row.of(self.indices[index], copy_of(index))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "dataset" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.dataset, name)


def random_split(
    dataset: Any,
    lengths: Sequence[int | float],
    generator: torch.Generator = torch.default_generator,
) -> list[Subset]:
    """Cut a dataset into disjoint parts at random, as torch's function does.

    Args:
        dataset: Any map-style dataset.
        lengths: Rows of each part, or fractions that sum to 1.
        generator: Of the permutation.

    Returns:
        A ``Subset`` per length; an empty one is warned about.

    Raises:
        ValueError: If the lengths or fractions do not sum up.

    Example:
        >>> parts = random_split([{"x": i} for i in range(10)], [0.8, 0.2])
        >>> [len(part) for part in parts]
        [8, 2]
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of empty parts only for some lengths
        parts = torch.utils.data.random_split(dataset, lengths, generator=generator)
    for place, part in enumerate(parts):
        if not len(part):
            warnings.warn(f"Part {place} of the split is empty.", stacklevel=2)
    return [Subset(dataset, part.indices) for part in parts]
