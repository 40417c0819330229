"""Datasets whose samples are dicts: the bases, and the adapter of a torch dataset."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch.utils.data

Sample = dict[str, Any]
Transform = Callable[[Sample], Sample]


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

    def process_sample(self, sample: Sample) -> Sample:
        """Apply the transform, if there is one."""
        return sample if self.transform is None else self.transform(sample)

    def __len__(self) -> int:
        """Number of samples."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "gpu_transform": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> Dataset:
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        new.__dict__.update({key: copy.deepcopy(v, memo) for key, v in self.__dict__.items()})
        return new

    def __copy__(self) -> Dataset:
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__)
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

    def __getitem__(self, index: int) -> Sample:
        """One sample."""
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
        return self.process_sample(sample)


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

    def __getitem__(self, index: int) -> Sample:
        """One sample of the underlying dataset."""
        sample: Sample = self.dataset[self.indices[index]]
        return sample

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Several samples, read together when the dataset can."""
        rows = [self.indices[index] for index in indices]
        if hasattr(self.dataset, "__getitems__"):
            samples: list[Sample] = self.dataset.__getitems__(rows)
            return samples
        return [self.dataset[row] for row in rows]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "dataset" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.dataset, name)
