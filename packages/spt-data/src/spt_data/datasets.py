"""Datasets whose samples are dicts: the bases, and the adapter of a dataset of tuples."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import torch
import torch.utils.data
from loguru import logger

from spt_data._draws import Row, asked_for, copy_of, keyed_draws, what_is_asked_for
from spt_data._errors import CorruptSampleError, is_decoding_error, name_of
from spt_data._ranks import rank_and_world

Sample = dict[str, Any]
Transform = Callable[[Sample], Sample]
OnError = Literal["raise", "skip"]
Self = TypeVar("Self", bound="DatasetMixin")
SLOTS = 1024  # one for each worker, so that none waits for another
TOLD = 5  # samples that each process names when it skips them
NEXT = 10  # rows that are tried instead of each, when none of a batch can be decoded


def new_clock() -> torch.Tensor:
    """Whether draws are keyed, the epoch, and the seed, where running workers can read them."""
    return torch.zeros(3, dtype=torch.int64).share_memory_()


def _progress() -> torch.Tensor:
    """Whether a trainer is attached, its step and its epoch, where workers can read them."""
    return torch.zeros(3, dtype=torch.int64).share_memory_()


def _slots() -> torch.Tensor:
    """Samples that each process skipped."""
    return torch.zeros(SLOTS, dtype=torch.int64).share_memory_()


def row_and_view(index: Any) -> tuple[int, Sample]:
    """Split an index that may be a ``(row, view)`` pair; the view belongs into the sample."""
    if isinstance(index, tuple):
        return int(index[0]), {"view_idx": int(index[1])}
    return int(index), {}


@contextmanager
def reading(row: Any, keys: Iterable[str] = ()) -> Iterator[None]:
    """Inside, bytes that cannot be decoded become an error that names the row and its keys.

    Raises:
        CorruptSampleError: Instead of what Pillow raises.
    """
    try:
        yield
    except Exception as error:
        if not is_decoding_error(error):
            raise
        held = f" (it holds {', '.join(map(repr, keys))})" if keys else ""
        raise CorruptSampleError(f"Sample {row} cannot be decoded: {error}{held}") from error


def _row_of(sample: Sample, place: Any) -> int | str | None:
    """What names a sample in the key of its draws: its ``sample_idx``, else where it was read."""
    row = sample.get("sample_idx", place)
    if row is None or isinstance(row, str):
        return row
    try:
        return int(row)
    except (TypeError, ValueError) as error:
        raise TypeError(
            "`sample_idx` must be an int or a string, the augmentation follows from it; a sample "
            f"has {row!r} with the keys {sorted(map(str, sample))}."
        ) from error


class DatasetMixin:
    """What map-style and streaming datasets share: the transforms, the keys of the draws, skipping.

    Args:
        transform: Called on each sample, in the loader's worker.
        gpu_transform: Called on each batch after it has reached the device, by the module. It
            stays with copies of the data set and is left out when the data set is sent to a
            worker process.
        on_error: ``"skip"`` leaves samples out of their batch whose data cannot be decoded; they
            are counted in ``n_skipped`` and reported. Other errors are raised in any case.

    Raises:
        TypeError: If a transform is not callable.
        ValueError: If ``on_error`` is neither.
    """

    def __init__(
        self,
        transform: Transform | None = None,
        gpu_transform: Transform | None = None,
        on_error: OnError = "raise",
    ) -> None:
        for name, value in (("transform", transform), ("gpu_transform", gpu_transform)):
            if value is not None and not callable(value):
                raise TypeError(f"`{name}` must be callable, got {type(value).__name__}.")
        if on_error not in ("raise", "skip"):
            raise ValueError(f"`on_error` must be 'raise' or 'skip', got {on_error!r}.")
        self.transform = transform
        self.gpu_transform = gpu_transform
        self.on_error = on_error
        self._clock = new_clock()
        self._slots = _slots()
        self._progress = _progress()
        self._trainer: Any = None

    def set_pl_trainer(self, trainer: Any) -> None:
        """Put ``global_step`` and ``current_epoch`` of a Trainer into each sample from now on.

        Running workers read them from memory that they share with this process. They read ahead:
        the step is the one at which the sample was made, until ``DataModule`` corrects the batch.
        """
        self._trainer = trainer
        self.tell_progress()

    def tell_progress(self) -> None:
        """Let running workers know the Trainer's step and epoch."""
        if self._trainer is not None:
            now = [1, int(self._trainer.global_step), int(self._trainer.current_epoch)]
            self._progress.copy_(torch.tensor(now))

    def set_epoch(self, epoch: int, seed: int = 0) -> None:
        """Draw each sample's augmentation from (seed, epoch, row, view) from now on.

        Running workers see it too. Without a call, transforms draw from torch's global generator.
        """
        self._clock.copy_(torch.tensor([1, epoch, seed]))

    @property
    def n_skipped(self) -> int:
        """Samples that were skipped so far, by all workers of this process."""
        return int(self._slots.sum())

    def process_sample(self, sample: Sample, **extra: Any) -> Sample:
        """Add ``extra`` and the Trainer's progress to a sample, and apply the transform.

        Raises:
            ValueError: If the sample has a ``global_step`` or a ``current_epoch`` of its own and a
                Trainer is attached.
        """
        sample = self._with_progress({**sample, **extra} if extra else sample)
        if self.transform is None:
            return sample
        keyed, epoch, seed = self._clock.tolist()
        place, copy = what_is_asked_for()
        row = _row_of(sample, place)
        if not keyed or row is None:
            return self.transform(sample)
        copies = (copy,) if copy else ()
        with keyed_draws(seed, epoch, row, sample.get("view_idx", 0), *copies):
            return self.transform(sample)

    def _with_progress(self, sample: Sample) -> Sample:
        if torch.utils.data.get_worker_info() is None:
            self.tell_progress()
        attached, step, epoch = self._progress.tolist()
        if not attached:
            return sample
        taken = sorted({"global_step", "current_epoch"} & set(sample))
        if taken:
            raise ValueError(
                f"{name_of(sample)} has {taken}, which the attached Trainer sets; rename the column."
            )
        return {**sample, "global_step": step, "current_epoch": epoch}

    def _skip(self, error: CorruptSampleError) -> None:
        """Count and tell, or raise."""
        if self.on_error == "raise":
            raise error
        worker = torch.utils.data.get_worker_info()
        slot = 0 if worker is None else 1 + worker.id % (SLOTS - 1)
        self._slots[slot] += 1
        if int(self._slots[slot]) <= TOLD:
            logger.warning(f"Skipped: {error}")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "gpu_transform": None, "_trainer": None}

    def __deepcopy__(self: Self, memo: dict[int, Any]) -> Self:
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        memo[id(self._trainer)] = self._trainer  # not ours to copy
        new.__dict__.update({key: copy.deepcopy(v, memo) for key, v in self.__dict__.items()})
        return new._own_memory(self)

    def __copy__(self: Self) -> Self:
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new._own_memory(self)

    def _own_memory(self: Self, other: DatasetMixin) -> Self:
        self._clock = new_clock().copy_(other._clock)
        self._progress = _progress().copy_(other._progress)
        self._slots = _slots()
        return self


class Dataset(DatasetMixin, torch.utils.data.Dataset[Sample]):
    """Map-style base: subclasses end ``__getitem__`` with :meth:`process_sample`.

    Args:
        transform: Called on each sample, in the loader's worker.
        gpu_transform: Called on each batch on the device.
        on_error: ``"skip"`` leaves samples out of their batch that cannot be decoded.
    """

    def __len__(self) -> int:
        """Number of samples."""
        raise NotImplementedError

    def __getitems__(self, indices: Sequence[int | tuple[int, int]]) -> list[Sample]:
        """The samples of a batch; with ``on_error="skip"``, without the broken ones.

        A batch of broken ones alone becomes one of the rows that follow them, for no batch may be
        missing on one rank only.

        Raises:
            CorruptSampleError: If one cannot be decoded, or none of the batch and of the rows
                after it can.
        """
        for shift in range(1 + NEXT):
            samples = self._whole([_shifted(index, shift, len(self)) for index in indices])
            if samples:
                return samples
        raise CorruptSampleError(
            f"None of the {len(indices)} samples of a batch, {list(indices)[:10]}, can be "
            f"decoded, nor can the {NEXT} rows after each."
        )

    def _whole(self, indices: Sequence[int | tuple[int, int]]) -> list[Sample]:
        samples = []
        for index in indices:
            try:
                with asked_for(row_and_view(index)[0], copy_of(index)):
                    samples.append(self[index])
            except CorruptSampleError as error:
                self._skip(error)
        return samples


def _shifted(index: Any, by: int, n_rows: int) -> Any:
    """The index of a row further on; which view and which copy stays."""
    if not by:
        return index
    row, extra = row_and_view(index)
    other = Row.of((row + by) % n_rows, copy_of(index))
    return (other, extra["view_idx"]) if extra else other


class IterableDataset(DatasetMixin, torch.utils.data.IterableDataset[Sample]):
    """Streaming base: subclasses write :meth:`rows`; an iteration can be resumed after any sample.

    Args:
        transform: Called on each sample, in the loader's worker.
        gpu_transform: Called on each batch on the device.
        on_error: ``"skip"`` leaves samples out that cannot be decoded.
    """

    def rows(self, epoch: int) -> Iterator[Sample]:
        """Samples of this rank and worker in an epoch, neither decoded nor transformed."""
        raise NotImplementedError(
            f"`{type(self).__name__}` must have `rows`, a generator of dicts."
        )

    def decode(self, sample: Sample) -> Sample:
        """What is costly about a sample; it is left out for those a resumed run passes over."""
        return sample

    def __iter__(self) -> Iterator[Sample]:
        return _Stream(self)


class _Stream(Iterator[Sample]):
    """One pass over a stream; its state is how many rows it has taken."""

    def __init__(self, dataset: IterableDataset) -> None:
        self.dataset = dataset
        self.taken = 0
        self._ahead = 0
        self._rows: Iterator[Sample] | None = None

    def _next_row(self) -> Sample:
        if self._rows is None:
            self._rows = self.dataset.rows(int(self.dataset._clock[1]))
            for _ in range(self._ahead):
                next(self._rows, None)
        row = next(self._rows)
        self.taken += 1
        return row

    def __next__(self) -> Sample:
        while True:
            row = self._next_row()
            try:
                with reading(row.get("sample_idx", f"{self.taken - 1} of the stream"), row):
                    sample = self.dataset.decode(row)
                with asked_for(self._place(sample)):
                    return self.dataset.process_sample(sample)
            except CorruptSampleError as error:
                self.dataset._skip(error)

    def _place(self, sample: Sample) -> str | None:
        """What names a sample without ``sample_idx``: the same again when the stream is resumed."""
        if "sample_idx" in sample:
            return None
        info = torch.utils.data.get_worker_info()
        return f"{rank_and_world()[0]}/{0 if info is None else info.id}/{self.taken - 1}"

    def state_dict(self) -> dict[str, int]:
        """How far it is."""
        return {"taken": self.taken}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there."""
        self.taken = self._ahead = state["taken"]
        self._rows = None


class FromTorchDataset(Dataset):
    """Name the fields of a dataset that returns tuples, such as torchvision's.

    Args:
        dataset: Map-style dataset of tuples.
        names: One name per field.
        transform: Called on each sample.
        gpu_transform: Called on each batch on the device.
        add_sample_idx: Add the row number as ``sample_idx``.
        on_error: ``"skip"`` leaves samples out of their batch that cannot be decoded.

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
        on_error: OnError = "raise",
    ) -> None:
        super().__init__(transform, gpu_transform, on_error)
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
        with reading(index, self.names):
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
        return self.process_sample(sample, **extra)
