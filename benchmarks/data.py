"""Images per second through a loader: decode, resize, collate; beside `datasets` and torchvision.

JPEGs of 500 x 375 are written to a folder and to a Parquet file once. All read, decode, resize to
224 x 224, convert and collate in the same number of workers, in turns; the median of the epochs is
printed. The second table reads rows of the bundled images one by one and together.

    python benchmarks/data.py [--quick]
"""

from __future__ import annotations

import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets as hf
import numpy as np
import torch
from PIL import Image
from spt_data import FromTorchDataset, HFMapDataset, Loader, sample_dataset, transforms
from torch.utils.data import DataLoader, default_collate
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

SIZE, BATCH, WORKERS = 224, 32, 2


def write_images(folder: Path, n: int) -> None:
    """Smooth noise as JPEGs, in an image folder of two classes."""
    generator = np.random.default_rng(0)
    for i in range(n):
        coarse = generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        target = folder / "images" / str(i % 2) / f"{i:05d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC).save(
            target, quality=90
        )


def as_table(folder: Path) -> hf.Dataset:
    """The same files as a dataset on disk, bytes included."""
    files = sorted((folder / "images").glob("*/*.jpg"))
    cells = [{"bytes": path.read_bytes(), "path": None} for path in files]
    columns = {"image": cells, "label": [int(path.parent.name) for path in files]}
    features = hf.Features({"image": hf.Image(), "label": hf.Value("int64")})
    hf.Dataset.from_dict(columns, features=features).save_to_disk(str(folder / "table"))
    return hf.load_from_disk(str(folder / "table"))


class Torchvision:
    """Torchvision's own chain, for one image or for the rows of a table."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.chain = v2.Compose(
            [v2.Resize((SIZE, SIZE)), v2.PILToTensor(), v2.ToDtype(dtype, scale=True)]
        )

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return self.chain(image.convert("RGB"))

    def rows(self, rows: dict[str, list]) -> dict[str, list]:
        return {**rows, "image": [self(image) for image in rows["image"]]}


def ours(dtype: torch.dtype) -> transforms.Compose:
    return transforms.Compose(
        transforms.RGB(), transforms.Resize((SIZE, SIZE)), transforms.ToImage(dtype=dtype)
    )


def scaled(dtype: torch.dtype) -> transforms.Compose:
    """JPEG bytes that decode at the part of their size which is needed."""
    return transforms.Compose(transforms.DecodeImage(min_side=SIZE), *ours(dtype).transforms)


def contestants(folder: Path, table: hf.Dataset) -> dict[str, Callable[[], Iterator]]:
    options = {"batch_size": BATCH, "num_workers": WORKERS}
    images, u8 = folder / "images", torch.uint8
    raw = table.cast_column("image", hf.Image(decode=False))
    encoded = transforms.Lambda(lambda sample: sample["image"]["bytes"])
    theirs_hf = table.with_transform(Torchvision(u8).rows)
    theirs_float = table.with_transform(Torchvision(torch.float32).rows)
    folder_ours = FromTorchDataset(ImageFolder(images), ["image", "label"], ours(u8))
    small = HFMapDataset(raw, transforms.Compose(encoded, scaled(u8)))
    return {
        "spt_data `HFMapDataset`, uint8": lambda: Loader(HFMapDataset(table, ours(u8)), **options),
        "spt_data `HFMapDataset`, uint8, scaled JPEG decode": lambda: Loader(small, **options),
        "spt_data `HFMapDataset`, float32": lambda: Loader(
            HFMapDataset(table, ours(torch.float32)), **options
        ),
        "plain `datasets`, uint8": lambda: DataLoader(theirs_hf, **options),
        "plain `datasets`, float32": lambda: DataLoader(theirs_float, **options),
        "spt_data over `ImageFolder`, uint8": lambda: Loader(folder_ours, **options),
        "torchvision `ImageFolder`, uint8": lambda: DataLoader(
            ImageFolder(images, Torchvision(u8)), **options
        ),
    }


def seconds(make: Callable[[], Iterator]) -> float:
    """One epoch, the start of the workers left out."""
    loader = iter(make())
    next(loader)
    start = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - start


def loaders(n: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder, n)
        entries = contestants(folder, as_table(folder))
        times: dict[str, list[float]] = {key: [] for key in entries}
        for _ in range(rounds):
            for key, make in entries.items():
                times[key].append(seconds(make))
    print(f"| loader of {n} JPEGs (500 x 375 to {SIZE} x {SIZE}), {WORKERS} workers | images/s |")
    print("|---|---|")
    for key, values in times.items():
        print(f"| {key} | {(n - BATCH) / statistics.median(values):.0f} |")


def batched_reads(rounds: int) -> None:
    """`__getitems__` beside one read per row: of encoded images and of small columns."""
    images = sample_dataset("train").dataset
    plain = hf.Dataset.from_dict({"x": list(range(50_000)), "y": [0.5] * 50_000})
    cases = {
        "labels and PNGs, decoded": HFMapDataset(images),
        "labels and PNGs, encoded": HFMapDataset(
            images.cast_column("image", hf.Image(decode=False))
        ),
        "two numbers": HFMapDataset(plain),
    }
    print("\n| rows of 256 at random | one by one, rows/s | together, rows/s | gain |")
    print("|---|---|---|---|")
    for name, dataset in cases.items():
        single, together = [], []
        for _ in range(rounds):
            rows = torch.randint(len(dataset), (256,)).tolist()
            start = time.perf_counter()
            default_collate([dataset[row]["sample_idx"] for row in rows])
            middle = time.perf_counter()
            default_collate([sample["sample_idx"] for sample in dataset.__getitems__(rows)])
            together.append(time.perf_counter() - middle)
            single.append(middle - start)
        slow, fast = (256 / statistics.median(values) for values in (single, together))
        print(f"| {name} | {slow:.0f} | {fast:.0f} | {fast / slow:.1f}x |")


def main() -> None:
    quick = "--quick" in sys.argv
    logging.disable(logging.WARNING)
    hf.disable_progress_bars()
    loaders(96 if quick else 384, 1 if quick else 9)
    batched_reads(3 if quick else 15)


if __name__ == "__main__":
    main()
