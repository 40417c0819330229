"""Any data set that yields dicts: webdataset, litdata, Lance, a list, a generator."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch.utils.data

from spt_data._errors import keys_of
from spt_data._ranks import rank_and_world
from spt_data.datasets import (
    Dataset,
    IterableDataset,
    OnError,
    Sample,
    Transform,
    reading,
    row_and_view,
)


def FromDictDataset(
    dataset: Any,
    transform: Transform | None = None,
    gpu_transform: Transform | None = None,
    rename_columns: Mapping[str, str] | None = None,
    id_key: str | Sequence[str] | None = None,
    on_error: OnError = "raise",
) -> DictMapDataset | DictIterableDataset:
    """Make a citizen of any data set whose samples are dicts.

    Args:
        dataset: Something with ``__getitem__`` and ``__len__``, or something to iterate over,
            again in each epoch.
        transform: Called on each sample, in the loader's worker.
        gpu_transform: Called on each batch on the device.
        rename_columns: New name of each key that gets one, such as ``{"jpg": "image"}``.
        id_key: Keys that name a sample of a stream; ``sample_idx`` is computed from them.
            Webdataset's own are used by default.
        on_error: ``"skip"`` leaves samples out that cannot be decoded.

    Returns:
        A map-style dataset, or an iterable one for what can only be iterated over and for torch's
        ``IterableDataset``.

    Raises:
        TypeError: If it is neither.

    Example:
        >>> FromDictDataset([{"jpg": 1}, {"jpg": 2}], rename_columns={"jpg": "image"})[1]
        {'image': 2, 'sample_idx': 1}
    """
    streams = isinstance(dataset, torch.utils.data.IterableDataset)
    if not streams and hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        return DictMapDataset(dataset, transform, gpu_transform, rename_columns, on_error)
    if not hasattr(dataset, "__iter__"):
        raise TypeError(
            "`dataset` must have `__getitem__` and `__len__`, or be iterable, got "
            f"{type(dataset).__name__}."
        )
    if isinstance(dataset, Iterator) and not streams:
        raise TypeError(
            "`dataset` must be iterable again in each epoch, got an iterator that ends with the "
            "first; pass what makes it."
        )
    return DictIterableDataset(dataset, transform, gpu_transform, rename_columns, id_key, on_error)


def _renamed(sample: Any, rename: Mapping[str, str], row: Any) -> Sample:
    if not isinstance(sample, Mapping):
        raise TypeError(
            f"Sample {row} must be a dict, got {type(sample).__name__}; name the fields of tuples "
            "with FromTorchDataset."
        )
    missing = sorted(set(rename) - set(sample))
    if missing:
        raise KeyError(f"`rename_columns` names {missing}, but sample {row} has {keys_of(sample)}.")
    return {rename.get(key, key): value for key, value in sample.items()}


class DictMapDataset(Dataset):
    """The map-style form of :func:`FromDictDataset`."""

    def __init__(
        self,
        dataset: Any,
        transform: Transform | None = None,
        gpu_transform: Transform | None = None,
        rename_columns: Mapping[str, str] | None = None,
        on_error: OnError = "raise",
    ) -> None:
        super().__init__(transform, gpu_transform, on_error)
        self.dataset = dataset
        self.rename_columns = dict(rename_columns or {})

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.dataset)

    def __getitem__(self, index: int | tuple[int, int]) -> Sample:
        """One sample; a ``(row, view)`` pair also sets ``view_idx``."""
        row, extra = row_and_view(index)
        with reading(row):
            sample = _renamed(self.dataset[row], self.rename_columns, row)
        sample.setdefault("sample_idx", row % len(self))
        return self.process_sample(sample, **extra)


class DictIterableDataset(IterableDataset):
    """The streaming form of :func:`FromDictDataset`.

    A torch ``IterableDataset`` shares its samples out among ranks and workers itself, as
    webdataset's and litdata's do. Of anything else each rank and worker takes each n-th sample,
    and ``sample_idx`` is the place in the stream.
    """

    def __init__(
        self,
        dataset: Any,
        transform: Transform | None = None,
        gpu_transform: Transform | None = None,
        rename_columns: Mapping[str, str] | None = None,
        id_key: str | Sequence[str] | None = None,
        on_error: OnError = "raise",
    ) -> None:
        super().__init__(transform, gpu_transform, on_error)
        self.dataset = dataset
        self.rename_columns = dict(rename_columns or {})
        self.id_keys = (id_key,) if isinstance(id_key, str) else tuple(id_key or ())

    def __len__(self) -> int:
        """Number of samples, when the dataset knows it.

        Raises:
            TypeError: If it does not.
        """
        return len(self.dataset)

    def set_epoch(self, epoch: int, seed: int = 0) -> None:
        """Choose the key of the augmentation, and pass the epoch on to a dataset that takes it."""
        super().set_epoch(epoch, seed)
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def rows(self, epoch: int) -> Iterator[Sample]:
        """Rows of this rank and worker."""
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)
        numbered = enumerate(self.dataset)
        shares = isinstance(self.dataset, torch.utils.data.IterableDataset)
        mine = numbered if shares else itertools.islice(numbered, *_share())
        for place, raw in mine:
            sample = _renamed(raw, self.rename_columns, place)
            if "sample_idx" not in sample:
                sample.update(self._identity(raw, None if shares else place))
            yield sample

    def _identity(self, raw: Mapping[str, Any], place: int | None) -> Sample:
        if self.id_keys:
            missing = [key for key in self.id_keys if key not in raw]
            if missing:
                raise KeyError(f"`id_key` names {missing}, but a sample has {keys_of(raw)}.")
            return {"sample_idx": stable_id(*(raw[key] for key in self.id_keys))}
        if "__key__" in raw:  # webdataset: the key is unique within its shard
            shard = str(raw.get("__url__", "")).rsplit("/", 1)[-1]
            return {"sample_idx": stable_id(shard, raw["__key__"])}
        return {} if place is None else {"sample_idx": place}


def _share() -> tuple[int, None, int]:
    """Start, end and step of this rank's and worker's part of a stream."""
    rank, world = rank_and_world()
    info = torch.utils.data.get_worker_info()
    worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
    return rank * workers + worker, None, world * workers


def stable_id(*parts: Any) -> int:
    """A number of 63 bits that follows from the parts alone.

    Example:
        >>> stable_id("shard-0.tar", "0001") == stable_id("shard-0.tar", "0001")
        True
    """
    text = "\x00".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
