"""Images stored with Lance: built once, read by row or by batch. Needs ``spt-data[lance]``."""

from __future__ import annotations

import functools
import importlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import datasets as hf
from PIL import Image
from torch import Tensor

from spt_data._modes import to_tensor
from spt_data.datasets import Dataset, OnError, Sample, Transform, reading, row_and_view

EIGHT_BITS = ("1", "L", "RGB", "P", "CMYK", "YCbCr")  # what a lossy format keeps by sight


def _lance() -> Any:
    try:
        return importlib.import_module("lance")
    except ImportError as error:
        raise ImportError(
            'Lance files need pylance, which is not installed: pip install "spt-data[lance]".'
        ) from error


def _side_file(path: Path) -> Path:
    return path.with_name(path.name + ".images.json")


def build_lance_image_dataset(
    source: Any,
    output_path: str | Path,
    *,
    image_columns: Sequence[str] | None = None,
    split: str | None = None,
    image_format: Literal["webp", "jpeg"] = "webp",
    quality: int = 85,
    max_size: int | None = None,
    batch_size: int = 512,
    workers: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a Hugging Face dataset to Lance, images encoded anew.

    Only pictures of 8 bits without transparency are encoded anew; deeper ones (a depth map) keep
    every bit, as PNG. An empty image stays empty.

    Args:
        source: ``datasets.Dataset``, ``DatasetDict``, or a path for ``load_dataset``.
        output_path: Folder of the result.
        image_columns: Columns to encode; those of type ``Image`` by default.
        split: Which split of several.
        image_format: ``"webp"`` or ``"jpeg"``.
        quality: 1 to 100.
        max_size: Longest side in pixels; the aspect is kept.
        batch_size: Rows encoded at a time.
        workers: Threads that encode.
        overwrite: Replace what is there.

    Returns:
        ``output_path``.

    Raises:
        FileExistsError: If there is something and ``overwrite`` is False.
        TypeError: If the source is none of the three.
        ValueError: If the format, a column or the split is not there, or no column holds images.
    """
    lance, path = _lance(), Path(output_path)
    pa = importlib.import_module("pyarrow")  # comes with datasets
    if image_format not in ("webp", "jpeg"):
        raise ValueError(f"`image_format` must be 'webp' or 'jpeg', got {image_format!r}.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} is there already; use overwrite=True to replace it.")
    table = _opened(source, split)
    columns = _image_columns(table, image_columns)
    for column in columns:
        table = table.cast_column(column, hf.Image(decode=False))
    encode = functools.partial(
        encoded, image_format=image_format, quality=quality, max_size=max_size
    )
    plain = {name: f for name, f in table.features.items() if name not in columns}
    fields = [pa.field("id", pa.int64()), *(pa.field(name, pa.binary()) for name in columns)]
    fields += list(hf.Features(plain).arrow_schema)
    schema = pa.schema([pa.field(field.name, field.type) for field in fields])

    def batches() -> Iterator[Any]:
        with ThreadPoolExecutor(workers) as pool:
            for start in range(0, len(table), batch_size):
                rows = table[start : start + batch_size]
                ids = range(start, start + len(next(iter(rows.values()))))
                for column in columns:
                    rows[column] = list(pool.map(encode, rows[column]))
                arrays = [pa.array(rows.get(f.name, ids), f.type) for f in schema]
                yield pa.record_batch(arrays, schema=schema)

    partial = path.with_name(f".{path.name}.{os.getpid()}")
    lance.write_dataset(batches(), str(partial), schema=schema)
    if path.exists():
        shutil.rmtree(path)
    partial.rename(path)
    facts: dict[str, Any] = {"encoding": image_format, "quality": quality, "max_size": max_size}
    facts |= {"num_rows": len(table), "image_columns": columns, "columns": list(schema.names)}
    draft = _side_file(partial)
    draft.write_text(json.dumps(facts, indent=1))
    draft.replace(_side_file(path))
    return path


def _opened(source: Any, split: str | None) -> hf.Dataset:
    loaded = hf.load_dataset(source) if isinstance(source, (str, Path)) else source
    if isinstance(loaded, hf.DatasetDict):
        if split is None and len(loaded) == 1:
            split = next(iter(loaded))
        if split not in loaded:
            raise ValueError(f"`split` must be one of {sorted(loaded)}, got {split!r}.")
        loaded = loaded[split]
    if not isinstance(loaded, hf.Dataset):
        raise TypeError(
            f"`source` must be a Dataset, a DatasetDict or a path, got {type(source).__name__}."
        )
    return loaded


def _image_columns(table: hf.Dataset, chosen: Sequence[str] | None) -> list[str]:
    found = [name for name, feature in table.features.items() if isinstance(feature, hf.Image)]
    wrong = sorted(set(chosen or ()) - set(found))
    if wrong or not found:
        raise ValueError(
            f"`image_columns` {wrong or 'are missing'}: the columns of type Image are {found}, all "
            f"columns {sorted(table.column_names)}."
        )
    return list(chosen) if chosen is not None else found


def encoded(
    cell: dict[str, Any] | None, image_format: str, quality: int, max_size: int | None
) -> bytes | None:
    """One image anew, or its own bytes when the format would lose what it holds."""
    if cell is None:
        return None
    data = cell["bytes"] if cell["bytes"] is not None else Path(cell["path"]).read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        lossy = image.mode in EIGHT_BITS and "transparency" not in image.info
        fits = max_size is None or max(image.size) <= max_size
        if not lossy and fits:
            return bytes(data)
        if max_size is not None:
            image.thumbnail((max_size, max_size), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        if lossy:
            picture = image if image.mode == "L" else image.convert("RGB")
            picture.save(buffer, image_format.upper(), quality=quality)
        else:
            image.save(buffer, "PNG")
        return buffer.getvalue()


class LanceImageDataset(Dataset):
    """Rows of a Lance file that ``build_lance_image_dataset`` wrote.

    Lance does not survive a fork: give a loader with workers ``multiprocessing_context="spawn"``.

    Args:
        lance_path: Its folder.
        image_format: ``"pil"``, or ``"tensor"`` for uint8 ``(C, H, W)``.
        columns: Columns to read; all by default.
        transform: Called on each sample.
        gpu_transform: Called on each batch on the device.
        on_error: ``"skip"`` leaves samples out that cannot be decoded.

    Raises:
        FileNotFoundError: If there is no side file ``<lance_path>.images.json``.
        ValueError: If the format or a column is not there.
    """

    def __init__(
        self,
        lance_path: str | Path,
        *,
        image_format: Literal["pil", "tensor"] = "pil",
        columns: Sequence[str] | None = None,
        transform: Transform | None = None,
        gpu_transform: Transform | None = None,
        on_error: OnError = "raise",
    ) -> None:
        super().__init__(transform, gpu_transform, on_error)
        self.path = Path(lance_path)
        if not _side_file(self.path).is_file():
            raise FileNotFoundError(f"{_side_file(self.path)} is missing; build the dataset first.")
        facts = json.loads(_side_file(self.path).read_text())
        if image_format not in ("pil", "tensor"):
            raise ValueError(f"`image_format` must be 'pil' or 'tensor', got {image_format!r}.")
        known = [name for name in facts["columns"] if name != "id"]
        unknown = sorted(set(columns or ()) - set(known))
        if unknown:
            raise ValueError(f"`columns` names {unknown}; there are {known}.")
        self.image_format = image_format
        self.columns = known if columns is None else list(columns)
        self.image_columns = [name for name in facts["image_columns"] if name in self.columns]
        self._num_rows = int(facts["num_rows"])
        self._handles: dict[int, Any] = {}  # one for each process: they do not survive a fork

    @property
    def column_names(self) -> list[str]:
        """The keys of a sample before the transform."""
        return [*self.columns, "sample_idx"]

    def __len__(self) -> int:
        """Number of samples."""
        return self._num_rows

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_handles": {}}

    @staticmethod
    def worker_init(worker_id: int) -> None:
        """Nothing is left to do in a worker; kept for loaders that pass it."""

    def _table(self) -> Any:
        process = os.getpid()
        if process not in self._handles:
            self._handles = {process: _lance().dataset(str(self.path))}
        return self._handles[process]

    def __getitem__(self, index: int | tuple[int, int]) -> Sample:
        """One sample; a ``(row, view)`` pair also sets ``view_idx``."""
        row, extra = row_and_view(index)
        (stored,) = self._read([row])
        return self._finish(stored, row % len(self), extra)

    def __getitems__(self, indices: Sequence[int | tuple[int, int]]) -> list[Sample]:
        """Several samples, read together."""
        keys = [row_and_view(index) for index in indices]
        stored = self._read([row for row, _ in keys])
        try:
            return [
                self._finish(sample, row % len(self), extra)
                for sample, (row, extra) in zip(stored, keys, strict=True)
            ]
        except ValueError:
            return super().__getitems__(indices)  # one by one: names or skips the broken ones

    def _read(self, rows: Sequence[int]) -> list[Sample]:
        wrong = [row for row in rows if not -len(self) <= row < len(self)]
        if wrong:
            raise IndexError(f"Rows {wrong[:5]} are out of range for {len(self)} rows.")
        unique = sorted({row % len(self) for row in rows})
        stored = self._table().take(unique, columns=self.columns).to_pylist()
        by_row = dict(zip(unique, stored, strict=True))
        return [dict(by_row[row % len(self)]) for row in rows]

    def _finish(self, sample: Sample, row: int, extra: Sample) -> Sample:
        for name in self.image_columns:
            if sample[name] is not None:
                with reading(row):
                    sample[name] = self._decoded(sample[name])
        return self.process_sample({**sample, "sample_idx": row}, **extra)

    def _decoded(self, data: bytes) -> Image.Image | Tensor:
        image = Image.open(io.BytesIO(data))
        image.load()
        return image if self.image_format == "pil" else to_tensor(image)
