"""Datasets whose samples are dicts: the bases, and the adapter of a torch dataset."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.utils.data

from spt_data._draws import keyed_draws

Sample = dict[str, Any]
Transform = Callable[[Sample], Sample]


def _clock() -> torch.Tensor:
    """Whether draws are keyed, the epoch, and the seed, where running workers can read them."""
    return torch.zeros(3, dtype=torch.int64).share_memory_()


def row_and_view(index: Any) -> tuple[int, Sample]:
    """Split an index that may be a ``(row, view)`` pair; the view belongs into the sample."""
    if isinstance(index, tuple):
        return int(index[0]), {"view_idx": int(index[1])}
    return int(index), {}


class Dataset(torch.utils.data.Dataset[Sample]):
    """Map-style base: subclasses end ``__getitem__`` with :meth:`process_sample`.

    Args:
        transform: Called on each sample, in the loader's worker.
        gpu_transform: Called on each batch after it has reached the device, by the module. It
            stays with copies of the data set and is left out when the data set is sent to a
            worker process.
    """

    def __init__(
        self, transform: Transform | None = None, gpu_transform: Transform | None = None
    ) -> None:
        for name, value in (("transform", transform), ("gpu_transform", gpu_transform)):
            if value is not None and not callable(value):
                raise TypeError(f"`{name}` must be callable, got {type(value).__name__}.")
        self.transform = transform
        self.gpu_transform = gpu_transform
        self._clock = _clock()

    def set_epoch(self, epoch: int, seed: int = 0) -> None:
        """Draw each sample's augmentation from (seed, epoch, row, view) from now on.

        Running workers see it too. Without a call, transforms draw from torch's global generator.
        """
        self._clock.copy_(torch.tensor([1, epoch, seed]))

    def process_sample(self, sample: Sample) -> Sample:
        """Apply the transform, if there is one."""
        if self.transform is None:
            return sample
        keyed, epoch, seed = self._clock.tolist()
        if not keyed or "sample_idx" not in sample:
            return self.transform(sample)
        with keyed_draws(seed, epoch, sample["sample_idx"], sample.get("view_idx", 0)):
            return self.transform(sample)

    def __len__(self) -> int:
        """Number of samples."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "gpu_transform": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> Dataset:
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        new.__dict__.update({key: copy.deepcopy(v, memo) for key, v in self.__dict__.items()})
        new._clock = _clock().copy_(self._clock)
        return new

    def __copy__(self) -> Dataset:
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__)
        new._clock = _clock().copy_(self._clock)
        return new


class FromTorchDataset(Dataset):
    """Name the fields of a dataset that returns tuples, such as torchvision's.

    Args:
        dataset: Map-style dataset of tuples.
        names: One name per field.
        transform: Called on each sample.
        gpu_transform: Called on each batch on the device.
        add_sample_idx: Add the row number as ``sample_idx``.

    Raises:
        ValueError: On access, if a sample has another number of fields than there are names.

    Example:
        >>> pairs = [("a", 0), ("b", 1)]
        >>> FromTorchDataset(pairs, names=["image", "label"])[1]
        {'image': 'b', 'label': 1, 'sample_idx': 1}
    """

    def __init__(
        self,
        dataset: Any,
        names: Sequence[str],
        transform: Transform | None = None,
        gpu_transform: Transform | None = None,
        add_sample_idx: bool = True,
    ) -> None:
        super().__init__(transform, gpu_transform)
        self.dataset = dataset
        self.names = list(names)
        self.add_sample_idx = add_sample_idx

    @property
    def column_names(self) -> list[str]:
        """The keys of a sample before the transform."""
        return [*self.names, "sample_idx"] if self.add_sample_idx else list(self.names)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.dataset)

    def __getitem__(self, index: int | tuple[int, int]) -> Sample:
        """One sample; a ``(row, view)`` pair also sets ``view_idx``."""
        index, extra = row_and_view(index)
        fields = self.dataset[index]
        if not isinstance(fields, (tuple, list)) or len(fields) != len(self.names):
            count = len(fields) if isinstance(fields, (tuple, list)) else type(fields).__name__
            raise ValueError(
                f"`names` has {len(self.names)} entries, {self.names}, but sample {index} has "
                f"{count} fields. Give one name per field."
            )
        sample = dict(zip(self.names, fields, strict=True))
        if self.add_sample_idx:
            sample["sample_idx"] = index % len(self)
        return self.process_sample({**sample, **extra})


class Subset(Dataset):
    """Some rows of a dataset; attributes it lacks are those of the dataset.

    Args:
        dataset: Any map-style dataset.
        indices: Rows to keep, in order.

    Raises:
        IndexError: If an index is out of range.
    """

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        super().__init__()
        self.dataset = dataset
        self.indices = [int(index) for index in indices]
        wrong = [i for i in self.indices if not -len(dataset) <= i < len(dataset)]
        if wrong:
            raise IndexError(
                f"`indices` must be rows of a dataset of {len(dataset)}, got {wrong[:5]}."
            )
        self.gpu_transform = getattr(dataset, "gpu_transform", None)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.indices)

    def set_epoch(self, epoch: int, seed: int = 0) -> None:
        """Pass it on to the dataset, if it takes it."""
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch, seed)

    def _inner(self, index: Any) -> Any:
        if isinstance(index, tuple):
            return self.indices[index[0]], index[1]
        return self.indices[index]

    def __getitem__(self, index: int | tuple[int, int]) -> Sample:
        """One sample of the underlying dataset."""
        sample: Sample = self.dataset[self._inner(index)]
        return sample

    def __getitems__(self, indices: Sequence[int | tuple[int, int]]) -> list[Sample]:
        """Several samples, read together when the dataset can."""
        rows = [self._inner(index) for index in indices]
        if hasattr(self.dataset, "__getitems__"):
            samples: list[Sample] = self.dataset.__getitems__(rows)
            return samples
        return [self.dataset[row] for row in rows]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "dataset" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.dataset, name)
