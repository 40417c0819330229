"""Fashion-MNIST of Debian's package ``dataset-fashion-mnist``, in batches as each kind of method reads them."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import IterableDataset

FOLDERS = ("/usr/share/dataset-fashion-mnist", "/usr/share/datasets/fashion-mnist")
BATCH, SIDE, SMALL_SIDE, FRAMES = 128, 32, 16, 4
MEAN, STD = 0.219, 0.332  # of the padded images
LABELLED, TESTED, PRETRAINED = 5000, 5000, 20000


def read(name: str, folders: tuple[str, ...] = FOLDERS) -> np.ndarray:
    """An IDX file of the package."""
    for folder in folders:
        for path in sorted(Path(folder).rglob(f"{name}*")):
            raw = path.read_bytes()
            raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
            dims = raw[3]
            shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(dims)]
            return np.frombuffer(raw, np.uint8, offset=4 + 4 * dims).reshape(shape)
    raise SystemExit(f"{name} is in none of {folders}: apt-get install dataset-fashion-mnist")


def load() -> dict[str, tuple[Tensor, Tensor]]:
    """Images in [0, 1], ``(N, 1, 32, 32)``, and labels: to pretrain, to fit the probes, to test."""
    parts = {}
    for part in ("train", "t10k"):
        images = torch.tensor(read(f"{part}-images")).float().div(255).unsqueeze(1)
        images = F.pad(images, (2,) * 4)  # to a power of two
        parts[part] = (images, torch.tensor(read(f"{part}-labels")).long())
    images, labels = parts["train"]
    return {
        "pretrain": (images[:PRETRAINED], labels[:PRETRAINED]),
        "probe": (images[-LABELLED:], labels[-LABELLED:]),
        "test": tuple(x[:TESTED] for x in parts["t10k"]),  # type: ignore[dict-item]
    }


def view(
    images: Tensor,
    generator: torch.Generator,
    size: int = SIDE,
    scale: tuple[float, float] = (0.4, 1),
) -> dict[str, Any]:
    """A random crop, flip, and change of brightness and contrast of each image, with its box."""
    n = len(images)
    u = torch.rand(6, n, generator=generator)
    side = (scale[0] + u[0] * (scale[1] - scale[0])).sqrt()
    aspect = torch.exp((u[1] - 0.5) * 0.5)
    height, width = (side * aspect).clamp(max=1), (side / aspect).clamp(max=1)
    top, left = u[2] * (1 - height), u[3] * (1 - width)
    flip = torch.where(u[4] < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = width * flip, height
    theta[:, 0, 2], theta[:, 1, 2] = 2 * left + width - 1, 2 * top + height - 1
    grid = F.affine_grid(theta, [n, 1, size, size], align_corners=False)
    out = F.grid_sample(images, grid, align_corners=False)
    contrast, brightness = 0.6 + 0.8 * torch.rand(2, n, 1, 1, 1, generator=generator)
    mean = out.mean((1, 2, 3), keepdim=True)
    out = ((out - mean) * contrast + mean) * brightness
    return {
        "image": normalized(out),
        "RandomResizedCrop": torch.stack([top, left, height, width], dim=1),
        "RandomHorizontalFlip": u[4] < 0.5,
    }


def normalized(images: Tensor) -> Tensor:
    """Of mean 0 and deviation 1 over the data set."""
    return (images - MEAN) / STD


def recoloured(seen: dict[str, Any], generator: torch.Generator) -> dict[str, Any]:
    """The same crops with other brightness and contrast."""
    images = seen["image"]
    scale, shift = torch.rand(2, len(images), 1, 1, 1, generator=generator)
    return {**seen, "image": images * (0.6 + 0.8 * scale) + 0.4 * (shift - 0.5)}


def video_of(images: Tensor, generator: torch.Generator) -> Tensor:
    """Frames ``(N, T, 1, 32, 32)`` of a camera that moves over each image at a steady speed."""
    margin = 6
    large = F.pad(images, (margin,) * 4)
    ends = torch.randint(2 * margin + 1, (2, 2, len(images)), generator=generator).float()
    row = torch.arange(len(images)).view(-1, 1, 1)
    frames = []
    for t in torch.linspace(0, 1, FRAMES):
        top, left = (ends[0] + t * (ends[1] - ends[0])).round().long()
        rows = (top.view(-1, 1) + torch.arange(SIDE)).unsqueeze(2)
        columns = (left.view(-1, 1) + torch.arange(SIDE)).unsqueeze(1)
        frames.append(large[row, 0, rows, columns])
    return torch.stack(frames, 1).unsqueeze(2)


VIEWS = {"one image": 1, "one crop, two colours": 1, "two views": 2, "multi-crop": 2}


class Stream(IterableDataset):  # type: ignore[type-arg]
    """Endless batches of views, drawn from a generator of its own."""

    def __init__(self, images: Tensor, labels: Tensor, kind: str, seed: int) -> None:
        self.images, self.labels, self.kind, self.seed = images, labels, kind, seed

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Batches as the kind of method reads them."""
        generator = torch.Generator().manual_seed(self.seed)
        while True:
            index = torch.randint(len(self.images), (BATCH,), generator=generator)
            images, labels = self.images[index], self.labels[index]
            if self.kind == "one video":
                yield {"video": normalized(video_of(images, generator)), "label": labels}
                continue
            large = [view(images, generator) for _ in range(VIEWS[self.kind])]
            if self.kind == "multi-crop":
                small = [view(images, generator, SMALL_SIDE, (0.15, 0.4)) for _ in range(2)]
                named = {f"global_{i}": v for i, v in enumerate(large)}
                yield {**named, **{f"local_{i}": v for i, v in enumerate(small)}}
            elif self.kind == "one image":
                yield {**large[0], "label": labels, "sample_idx": index}
            elif self.kind == "one crop, two colours":
                yield {"views": [large[0], recoloured(large[0], generator)], "label": labels}
            else:
                yield {"views": large, "label": labels}
