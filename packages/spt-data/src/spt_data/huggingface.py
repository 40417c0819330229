"""Hugging Face datasets as datasets of dicts."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets as hf
import torch
from datasets.distributed import split_dataset_by_node

from spt_data._draws import asked_for, copy_of
from spt_data._errors import is_decoding_error
from spt_data._hub import patiently
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

ACROSS = ("Take", "Skip", "Cycling", "RandomlyCycling", "Repeat")  # steps of `datasets`' streams
SHUFFLED = ("BufferShuffled", "Shuffl")


def HFDataset(
    *args: Any,
    transform: Transform | None = None,
    gpu_transform: Transform | None = None,
    rename_columns: Mapping[str, str] | None = None,
    remove_columns: Sequence[str] | None = None,
    on_error: OnError = "raise",
    **kwargs: Any,
) -> HFMapDataset | HFIterableDataset:
    """Open a dataset of the Hub, of local files, or of a folder saved by ``save_to_disk``.

    A Hub that answers "too many requests" is asked again after the time it names. Ranks need not
    take turns: ``datasets`` lets one of a node prepare the files and the others wait.

    Args:
        *args: As for ``datasets.load_dataset``; the first one is the path.
        transform: Called on each sample, in the loader's worker.
        gpu_transform: Called on each batch on the device.
        rename_columns: New name of each column that gets one.
        remove_columns: Columns to leave out, by their new names.
        on_error: ``"skip"`` leaves samples out whose images cannot be decoded, and counts them.
        **kwargs: As for ``datasets.load_dataset``; ``streaming=True`` gives an iterable dataset.

    Returns:
        A map-style dataset, or an iterable one when streaming.

    Raises:
        ValueError: If the path is not a string, there is no such split, it is empty, or a
            column is unknown.
    """
    path = args[0] if args else kwargs.get("path")
    if not isinstance(path, str):
        raise ValueError(
            f"HFDataset needs the path of a dataset as its first argument or as `path=`, got "
            f"{path!r}."
        )
    if "http" in str(kwargs.get("data_files", "")):
        kwargs.setdefault("storage_options", _slow_server())
    loaded = _load(path, args, kwargs)
    if isinstance(loaded, Mapping):
        raise ValueError(
            f"{path!r} has the splits {sorted(loaded)}; choose one with `split=`, for example "
            f"split={sorted(loaded)[-1]!r}."
        )
    if isinstance(loaded, hf.Dataset) and not len(loaded):
        raise ValueError(f"The split {kwargs.get('split')!r} of {path!r} has no rows.")
    kind = HFIterableDataset if isinstance(loaded, hf.IterableDataset) else HFMapDataset
    return kind(
        loaded,
        transform=transform,
        gpu_transform=gpu_transform,
        rename_columns=rename_columns,
        remove_columns=remove_columns,
        on_error=on_error,
    )


def _slow_server() -> dict[str, Any]:
    """An hour for a file of a web server, of which aiohttp gives up after five minutes."""
    limit = importlib.import_module("aiohttp").ClientTimeout(total=3600)  # comes with datasets
    return {scheme: {"client_kwargs": {"timeout": limit}} for scheme in ("http", "https")}


def _load(path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    saved = Path(path).expanduser()
    if (saved / "state.json").is_file() or (saved / "dataset_dict.json").is_file():
        try:
            loaded = hf.load_from_disk(str(saved))
        except IndexError as error:  # how `datasets` meets a table without files
            raise ValueError(f"{path!r} holds a split that has no rows.") from error
        split = kwargs.get("split")
        if isinstance(loaded, Mapping) and split is not None:
            if split not in loaded:
                raise ValueError(f"{path!r} has no split {split!r}; it has {sorted(loaded)}.")
            return loaded[split]
        return loaded
    try:
        return patiently(lambda: hf.load_dataset(*args, **kwargs))
    except ValueError as error:
        if "Unknown split" in str(error):
            raise ValueError(f"{path!r} has no split {kwargs.get('split')!r}: {error}") from error
        raise


def _columns(dataset: Any, rename: Mapping[str, str] | None, remove: Sequence[str] | None) -> Any:
    """Rename and remove columns, refusing those that are not there."""
    for argument, names in (("rename_columns", rename), ("remove_columns", remove)):
        present = dataset.column_names
        unknown = sorted(set(names or ()) - set(present)) if present is not None else []
        if unknown:
            raise ValueError(f"`{argument}` names {unknown}; the columns are {sorted(present)}.")
        if names:
            dataset = (
                dataset.rename_columns(dict(rename or {}))
                if argument == "rename_columns"
                else dataset.remove_columns(list(remove or ()))
            )
    return dataset


class HFMapDataset(Dataset):
    """A Hugging Face dataset; each sample also holds its row number, ``sample_idx``.

    Args:
        dataset: ``datasets.Dataset``.
        transform: Called on each sample.
        rename_columns: New name of each column that gets one.
        remove_columns: Columns to leave out, by their new names.
        gpu_transform: Called on each batch on the device.
        on_error: ``"skip"`` leaves samples out of their batch whose images cannot be decoded.

    Raises:
        ValueError: If a column is unknown.
    """

    def __init__(
        self,
        dataset: hf.Dataset,
        transform: Transform | None = None,
        rename_columns: Mapping[str, str] | None = None,
        remove_columns: Sequence[str] | None = None,
        gpu_transform: Transform | None = None,
        on_error: OnError = "raise",
    ) -> None:
        super().__init__(transform, gpu_transform, on_error)
        self.dataset = _columns(dataset, rename_columns, remove_columns)
        self._order: torch.Tensor | None = None

    @property
    def column_names(self) -> list[str]:
        """The keys of a sample before the transform."""
        return list(dict.fromkeys([*self.dataset.column_names, "sample_idx"]))

    @property
    def features(self) -> hf.Features:
        """Types of the columns, class names among them."""
        return self.dataset.features

    def shuffle(self, seed: int = 42, **ignored: Any) -> HFMapDataset:
        """Shuffle in place; no row is copied, and each keeps its ``sample_idx``.

        What else the shuffle of a stream takes, such as ``buffer_size``, changes nothing here.
        """
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        self._order = order if self._order is None else self._order[order]
        return self

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.dataset)

    def _row(self, index: int) -> int:
        """The row in the file, which is the row that ``sample_idx`` names."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"Row {index} is out of range for a dataset of {len(self)} rows.")
        index %= len(self)
        return index if self._order is None else int(self._order[index])

    def __getitem__(self, index: int | tuple[int, int]) -> Sample:
        """One sample; a ``(row, view)`` pair also sets ``view_idx``.

        Raises:
            CorruptSampleError: If its image cannot be decoded.
        """
        place, extra = row_and_view(index)
        row = self._row(place)
        with reading(row, self.dataset.column_names):
            sample = self.dataset[row]
        return self._finish({**sample, **extra}, row)

    def __getitems__(self, indices: Sequence[int | tuple[int, int]]) -> list[Sample]:
        """Several samples, read from disk together."""
        keys = [row_and_view(index) for index in indices]
        rows = [self._row(place) for place, _ in keys]
        try:
            columns = self.dataset[rows]
            samples = []
            for i, (row, (_, extra)) in enumerate(zip(rows, keys, strict=True)):
                sample = {**{key: values[i] for key, values in columns.items()}, **extra}
                with asked_for(row, copy_of(indices[i])):
                    samples.append(self._finish(sample, row))
            return samples
        except Exception as error:
            if not is_decoding_error(error):
                raise
            return super().__getitems__(indices)  # one by one: names or skips the broken ones

    def _finish(self, sample: Sample, row: int) -> Sample:
        sample.setdefault("sample_idx", row)
        return self.process_sample(sample)


class HFIterableDataset(IterableDataset):
    """A streaming Hugging Face dataset, shared out among ranks and the workers of each.

    ``sample_idx`` follows from the shard and the row within it: it is the same in every epoch and
    order, for any number of ranks and workers. A loader resumes after any sample; rows that were
    given already are read again but not decoded.

    Args:
        dataset: ``datasets.IterableDataset``, not shuffled yet (use :meth:`shuffle`). What
            chooses rows across its shards, such as ``take``, needs a column ``sample_idx``.
        transform: Called on each sample.
        rename_columns: New name of each column that gets one.
        remove_columns: Columns to leave out, by their new names.
        gpu_transform: Called on each batch on the device.
        on_error: ``"skip"`` leaves samples out whose images cannot be decoded.

    Raises:
        ValueError: If a column is unknown, or the stream cannot be numbered.
    """

    def __init__(
        self,
        dataset: hf.IterableDataset,
        transform: Transform | None = None,
        rename_columns: Mapping[str, str] | None = None,
        remove_columns: Sequence[str] | None = None,
        gpu_transform: Transform | None = None,
        on_error: OnError = "raise",
    ) -> None:
        super().__init__(transform, gpu_transform, on_error)
        columns = _columns(dataset, rename_columns, remove_columns)
        self._images: dict[str, hf.Image] = {
            name: feature
            for name, feature in (columns.features or {}).items()
            if isinstance(feature, hf.Image) and feature.decode
        }
        for name, feature in self._images.items():
            columns = columns.cast_column(name, hf.Image(mode=feature.mode, decode=False))
        self.dataset = _numbered(columns)

    @property
    def column_names(self) -> list[str] | None:
        """The keys of a sample before the transform, when the stream tells them."""
        names: list[str] | None = self.dataset.column_names
        return names

    def shuffle(self, seed: int = 42, buffer_size: int = 10_000) -> HFIterableDataset:
        """Shuffle in place: the shards, and the rows within a buffer; anew in each epoch."""
        self.dataset = self.dataset.shuffle(seed=seed, buffer_size=buffer_size)
        return self

    def set_epoch(self, epoch: int, seed: int = 0) -> None:
        """Choose the order of a shuffled stream, and the key of the augmentation."""
        super().set_epoch(epoch, seed)
        self.dataset.set_epoch(epoch)

    def rows(self, epoch: int) -> Iterator[Sample]:
        """Rows of this rank; ``datasets`` gives each worker its part of them."""
        rank, world = rank_and_world()
        stream = self.dataset
        if world > 1:
            stream = split_dataset_by_node(stream, rank, world)
        stream.set_epoch(epoch)
        return iter(stream)

    def decode(self, sample: Sample) -> Sample:
        """Decode the images."""
        images = {
            name: None if sample[name] is None else feature.decode_example(sample[name])
            for name, feature in self._images.items()
        }
        return {**sample, **images}


def _numbered(dataset: hf.IterableDataset) -> hf.IterableDataset:
    """Add ``sample_idx``: row within the shard times the number of shards, plus the shard."""
    if "sample_idx" in (dataset.column_names or ()):
        return dataset
    _check_order(dataset)
    count, features = dataset.num_shards, dataset.features
    if features is not None:
        features = hf.Features({**features, "sample_idx": hf.Value("int64")})
    shards = [
        dataset.shard(num_shards=count, index=shard).map(
            functools.partial(_number, shard=shard, count=count),
            with_indices=True,
            input_columns=[],
            features=features,
        )
        for shard in range(count)
    ]
    return hf.concatenate_datasets(shards) if count > 1 else shards[0]


def _check_order(dataset: hf.IterableDataset) -> None:
    """Refuse what chooses or mixes rows across shards: it would choose others of each shard alone.

    Raises:
        ValueError: If the stream was made by ``take``, ``skip``, ``interleave_datasets`` or the
            like.
    """
    pending: list[Any] = [getattr(dataset, "_ex_iterable", None)]
    while pending:
        step = pending.pop()
        name = type(step).__name__
        several = dataset.num_shards > 1
        if name.startswith(SHUFFLED) or (several and name.startswith(ACROSS)):
            raise ValueError(
                f"HFIterableDataset cannot number the rows of a stream with a {name}: rows are "
                "numbered within their shards, before `take`, `skip`, `interleave_datasets` or "
                "`shuffle`. Shuffle with HFIterableDataset.shuffle; for the others, give the rows "
                "a column `sample_idx` first, by a map that names it in its `features`."
            )
        pending += [step.ex_iterable] if hasattr(step, "ex_iterable") else []
        pending += getattr(step, "ex_iterables", [])


def _number(row: int, shard: int, count: int) -> dict[str, int]:
    return {"sample_idx": row * count + shard}
