"""Hugging Face datasets as datasets of dicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets as hf
import torch.utils.data

from spt_data.datasets import Dataset, Sample, Transform, row_and_view


def HFDataset(
    *args: Any,
    transform: Transform | None = None,
    gpu_transform: Transform | None = None,
    rename_columns: Mapping[str, str] | None = None,
    remove_columns: Sequence[str] | None = None,
    **kwargs: Any,
) -> HFMapDataset | HFIterableDataset:
    """Open a dataset of the Hub, of local files, or of a folder saved by ``save_to_disk``.

    Args:
        *args: As for ``datasets.load_dataset``; the first one is the path.
        transform: Called on each sample, in the loader's worker.
        gpu_transform: Called on each batch on the device.
        rename_columns: New name of each column that gets one.
        remove_columns: Columns to leave out, by their new names.
        **kwargs: As for ``datasets.load_dataset``; ``streaming=True`` gives an iterable dataset.

    Returns:
        A map-style dataset, or an iterable one when streaming.

    Raises:
        ValueError: If the path is not a string, there is no such split, or a column is unknown.
    """
    path = args[0] if args else kwargs.get("path")
    if not isinstance(path, str):
        raise ValueError(
            f"HFDataset needs the path of a dataset as its first argument or as `path=`, got "
            f"{path!r}."
        )
    loaded = _load(path, args, kwargs)
    if isinstance(loaded, Mapping):
        raise ValueError(
            f"{path!r} has the splits {sorted(loaded)}; choose one with `split=`, for example "
            f"split={sorted(loaded)[-1]!r}."
        )
    kind = HFIterableDataset if isinstance(loaded, hf.IterableDataset) else HFMapDataset
    return kind(
        loaded,
        transform=transform,
        gpu_transform=gpu_transform,
        rename_columns=rename_columns,
        remove_columns=remove_columns,
    )


def _load(path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    saved = Path(path).expanduser()
    if (saved / "state.json").is_file() or (saved / "dataset_dict.json").is_file():
        loaded = hf.load_from_disk(str(saved))
        split = kwargs.get("split")
        if isinstance(loaded, Mapping) and split is not None:
            if split not in loaded:
                raise ValueError(f"{path!r} has no split {split!r}; it has {sorted(loaded)}.")
            return loaded[split]
        return loaded
    try:
        return hf.load_dataset(*args, **kwargs)
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
    ) -> None:
        super().__init__(transform, gpu_transform)
        self.dataset = _columns(dataset, rename_columns, remove_columns)

    @property
    def column_names(self) -> list[str]:
        """The keys of a sample before the transform."""
        return list(dict.fromkeys([*self.dataset.column_names, "sample_idx"]))

    @property
    def features(self) -> hf.Features:
        """Types of the columns, class names among them."""
        return self.dataset.features

    def shuffle(self, seed: int = 42) -> HFMapDataset:
        """Shuffle in place."""
        self.dataset = self.dataset.shuffle(seed=seed)
        return self

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.dataset)

    def __getitem__(self, index: int | tuple[int, int]) -> Sample:
        """One sample; a ``(row, view)`` pair also sets ``view_idx``.

        Raises:
            ValueError: If its image cannot be decoded.
        """
        row, extra = row_and_view(index)
        try:
            sample = self.dataset[row]
        except OSError as error:  # Pillow's UnidentifiedImageError is one
            raise ValueError(f"Sample {row} cannot be decoded: {error}") from error
        return self._finish({**sample, **extra}, row)

    def __getitems__(self, indices: Sequence[int | tuple[int, int]]) -> list[Sample]:
        """Several samples, read from disk together."""
        keys = [row_and_view(index) for index in indices]
        try:
            columns = self.dataset[[row for row, _ in keys]]
        except OSError:
            return [self[index] for index in indices]  # names the sample that is broken
        return [
            self._finish({**{key: values[i] for key, values in columns.items()}, **extra}, row)
            for i, (row, extra) in enumerate(keys)
        ]

    def _finish(self, sample: Sample, index: int) -> Sample:
        sample.setdefault("sample_idx", index % len(self))
        return self.process_sample(sample)


class HFIterableDataset(torch.utils.data.IterableDataset[Sample]):
    """A streaming Hugging Face dataset; workers of a loader share its shards.

    Args:
        dataset: ``datasets.IterableDataset``.
        transform: Called on each sample.
        rename_columns: New name of each column that gets one.
        remove_columns: Columns to leave out, by their new names.
        gpu_transform: Called on each batch on the device.
    """

    def __init__(
        self,
        dataset: hf.IterableDataset,
        transform: Transform | None = None,
        rename_columns: Mapping[str, str] | None = None,
        remove_columns: Sequence[str] | None = None,
        gpu_transform: Transform | None = None,
    ) -> None:
        super().__init__()
        self.dataset = _columns(dataset, rename_columns, remove_columns)
        self.transform = transform
        self.gpu_transform = gpu_transform

    @property
    def column_names(self) -> list[str] | None:
        """The keys of a sample before the transform, when the stream tells them."""
        names: list[str] | None = self.dataset.column_names
        return names

    def shuffle(self, seed: int = 42, buffer_size: int = 10_000) -> HFIterableDataset:
        """Shuffle in place, within a buffer."""
        self.dataset = self.dataset.shuffle(seed=seed, buffer_size=buffer_size)
        return self

    def set_epoch(self, epoch: int, seed: int = 0) -> None:
        """Change the order of a shuffled stream; its seed is that of ``shuffle``."""
        self.dataset.set_epoch(epoch)

    def __iter__(self) -> Iterator[Sample]:
        """Samples of this worker's shards."""
        for sample in self.dataset:
            yield sample if self.transform is None else self.transform(sample)
