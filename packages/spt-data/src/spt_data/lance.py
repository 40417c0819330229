"""Images stored with Lance: built once, read by row or by batch. Needs ``spt-data[lance]``."""

from __future__ import annotations

import functools
import importlib
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import datasets as hf
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from spt_data._draws import asked_for, copy_of
from spt_data._lance import (
    Table,
    check_free,
    lance,
    read_facts,
    side_file,
    write_facts,
    write_table,
)
from spt_data._modes import to_tensor
from spt_data.datasets import Dataset, OnError, Sample, Transform, reading, row_and_view

EIGHT_BITS = ("1", "L", "RGB", "P", "CMYK", "YCbCr")  # what a lossy format keeps by sight


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
    store_dimensions: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write a Hugging Face dataset to Lance, images encoded anew.

    Only pictures of 8 bits without transparency are encoded anew; deeper ones (a depth map) keep
    every bit, as PNG. An empty image stays empty.

    Args:
        source: ``datasets.Dataset``, ``DatasetDict``, or a path for ``load_dataset``.
        output_path: Folder of the result.
        image_columns: Columns to encode; by default those of type ``Image``, or else those whose
            first cell holds the bytes of an image.
        split: Which split of several.
        image_format: ``"webp"`` or ``"jpeg"``.
        quality: 1 to 100.
        max_size: Longest side in pixels; the aspect is kept.
        batch_size: Rows encoded at a time.
        workers: Threads that encode.
        store_dimensions: Also store ``<column>_width`` and ``<column>_height``, int32 pixels.
        overwrite: Replace what is there.

    Returns:
        ``output_path``.

    Raises:
        CorruptSampleError: If an image cannot be decoded; it names the row.
        FileExistsError: If there is something and ``overwrite`` is False.
        TypeError: If the source is none of the three.
        ValueError: If the format, a column or the split is not there, no column holds images, or
            a column has a name that is set here, such as ``id``.
    """
    lance()
    path = Path(output_path)
    if image_format not in ("webp", "jpeg"):
        raise ValueError(f"`image_format` must be 'webp' or 'jpeg', got {image_format!r}.")
    check_free(path, overwrite)
    table = _opened(source, split)
    columns = _image_columns(table, image_columns)
    for column in columns:
        table = table.cast_column(column, hf.Image(decode=False))
    schema = _schema(table, columns, store_dimensions)
    encode = functools.partial(
        encoded, image_format=image_format, quality=quality, max_size=max_size
    )
    batches = _batches(table, columns, schema, encode, batch_size, workers, store_dimensions)
    write_table(path, batches, schema)
    facts: dict[str, Any] = {"encoding": image_format, "quality": quality, "max_size": max_size}
    facts |= {"store_dimensions": store_dimensions, "num_rows": len(table)}
    facts |= {"image_columns": columns, "columns": list(schema.names)}
    write_facts(side_file(path, "images"), facts)
    return path


def _schema(table: hf.Dataset, columns: Sequence[str], store_dimensions: bool) -> Any:
    pa = importlib.import_module("pyarrow")  # comes with datasets
    fields = [pa.field("id", pa.int64())]
    for name in columns:
        fields.append(pa.field(name, pa.binary()))
        if store_dimensions:
            fields += [pa.field(f"{name}_{side}", pa.int32()) for side in ("width", "height")]
    plain = {name: feature for name, feature in table.features.items() if name not in columns}
    taken = sorted({field.name for field in fields} & set(plain))
    if taken:
        raise ValueError(f"The columns {taken} have names that are set here; rename them.")
    fields += list(hf.Features(plain).arrow_schema)
    return pa.schema([pa.field(field.name, field.type) for field in fields])


def _batches(
    table: hf.Dataset,
    columns: Sequence[str],
    schema: Any,
    encode: Callable[[Any], bytes | None],
    batch_size: int,
    workers: int | None,
    store_dimensions: bool,
) -> Iterator[Any]:
    """Record batches; threads encode the images of one at a time."""
    pa = importlib.import_module("pyarrow")

    def encode_row(row: int, cell: Any) -> bytes | None:
        with reading(row):
            return encode(cell)

    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(table), batch_size):
            rows = table[start : start + batch_size]
            rows["id"] = range(start, start + len(next(iter(rows.values()))))
            for column in columns:
                rows[column] = list(pool.map(encode_row, rows["id"], rows[column]))
                if store_dimensions:
                    sizes = [_size(data) for data in rows[column]]
                    rows[f"{column}_width"], rows[f"{column}_height"] = zip(*sizes, strict=True)
            arrays = [pa.array(rows[field.name], field.type) for field in schema]
            yield pa.record_batch(arrays, schema=schema)


def _size(data: bytes | None) -> tuple[int | None, int | None]:
    """Width and height, from the head of the file."""
    if data is None:
        return None, None
    with Image.open(io.BytesIO(data)) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5  # by a quarter
        return image.size[::-1] if turned else image.size


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
    typed = [name for name, feature in table.features.items() if isinstance(feature, hf.Image)]
    first = table.with_format(None)[:1] if chosen or not typed else {}
    bytes_of_images = [name for name, cells in first.items() if _holds_image(cells)]
    found = typed or bytes_of_images
    wrong = sorted(set(chosen or ()) - {*typed, *bytes_of_images})
    if wrong or not found:
        raise ValueError(
            f"`image_columns` {wrong or 'are missing'}: the columns that hold images are {found}, "
            f"all columns {sorted(table.column_names)}."
        )
    return list(chosen) if chosen is not None else found


def _holds_image(cells: Sequence[Any]) -> bool:
    """Whether a column without a type holds encoded images, as Parquet files often do."""
    data = cells[0] if cells else None
    data = data.get("bytes") if isinstance(data, dict) else data
    if not isinstance(data, bytes):
        return False
    try:
        Image.open(io.BytesIO(data)).close()
    except UnidentifiedImageError:
        return False
    return True


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
        ImageOps.exif_transpose(image, in_place=True)  # the new bytes carry no tag of it
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
        facts = read_facts(side_file(self.path, "images"))
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
        self._table = Table(self.path)

    @property
    def column_names(self) -> list[str]:
        """The keys of a sample before the transform."""
        return [*self.columns, "sample_idx"]

    def __len__(self) -> int:
        """Number of samples."""
        return self._num_rows

    @staticmethod
    def worker_init(worker_id: int) -> None:
        """Nothing is left to do in a worker; kept for loaders that pass it."""

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
            samples = []
            for sample, (row, extra), index in zip(stored, keys, indices, strict=True):
                with asked_for(row, copy_of(index)):
                    samples.append(self._finish(sample, row % len(self), extra))
            return samples
        except ValueError:
            return super().__getitems__(indices)  # one by one: names or skips the broken ones

    def _read(self, rows: Sequence[int]) -> list[Sample]:
        wrong = [row for row in rows if not -len(self) <= row < len(self)]
        if wrong:
            raise IndexError(f"Rows {wrong[:5]} are out of range for {len(self)} rows.")
        return self._table.take([row % len(self) for row in rows], self.columns)

    def _finish(self, sample: Sample, row: int, extra: Sample) -> Sample:
        for name in self.image_columns:
            if sample[name] is not None:
                with reading(row, [name]):
                    sample[name] = self._decoded(sample[name])
        return self.process_sample({**sample, "sample_idx": row}, **extra)

    def _decoded(self, data: bytes) -> Image.Image | Tensor:
        image: Image.Image = Image.open(io.BytesIO(data))
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return image if self.image_format == "pil" else to_tensor(image)
