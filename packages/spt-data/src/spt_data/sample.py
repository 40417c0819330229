"""The bundled images: 6,000 + 1,000 of Fashion-MNIST, in ten balanced classes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from spt_data.datasets import Transform
from spt_data.huggingface import HFDataset, HFMapDataset

FOLDER = Path(__file__).parent / "sample_data"


def sample_dataset(
    split: Literal["train", "test"],
    transform: Transform | None = None,
    gpu_transform: Transform | None = None,
) -> HFMapDataset:
    """Open the bundled images, through the same path as any other dataset.

    They are the first 600 (train) and 100 (test) images of each class of Fashion-MNIST
    (https://arxiv.org/abs/1708.07747, MIT licence), 28x28 grey PNGs.

    Args:
        split: ``"train"`` (6,000 images) or ``"test"`` (1,000).
        transform: Called on each sample: ``image`` a PIL image of mode L, ``label`` an int.
        gpu_transform: Called on each batch on the device.

    Raises:
        ValueError: If there is no such split.
    """
    files = {path.stem: str(path) for path in sorted(FOLDER.glob("*.parquet"))}
    if split not in files:
        raise ValueError(f"`split` must be one of {sorted(files)}, got {split!r}.")
    dataset = HFDataset(
        "parquet",
        data_files={split: files[split]},
        split=split,
        transform=transform,
        gpu_transform=gpu_transform,
    )
    assert isinstance(dataset, HFMapDataset)  # it does not stream
    return dataset
