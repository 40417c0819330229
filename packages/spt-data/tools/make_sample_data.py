"""Make the bundled sample data from the IDX files of Fashion-MNIST.

The files come with Debian's package ``dataset-fashion-mnist``
(``/usr/share/datasets/fashion-mnist``) or from
https://github.com/zalandoresearch/fashion-mnist (MIT licence). For each class the first rows in file order are kept, 600 of the training file and 100 of the test file, in the order in
which they stand there.

    python tools/make_sample_data.py /usr/share/datasets/fashion-mnist
"""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Picture

OUT = Path(__file__).resolve().parent.parent / "src" / "spt_data" / "sample_data"
FILES = {"train": ("train", 600), "test": ("t10k", 100)}
NAMES = [
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
]  # fmt: skip


def read_idx(path: Path) -> np.ndarray:
    """An IDX file of unsigned bytes: a magic number, the dimensions, the values."""
    content = gzip.decompress(path.read_bytes())
    n_dims = content[3]
    shape = np.frombuffer(content, ">u4", n_dims, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * n_dims).reshape(shape)


def first_rows(labels: np.ndarray, per_class: int) -> np.ndarray:
    """Rows, in file order, of the first samples of each class."""
    rows = [np.flatnonzero(labels == label)[:per_class] for label in range(10)]
    return np.sort(np.concatenate(rows))


def png(pixels: np.ndarray) -> bytes:
    """A grey image as PNG."""
    buffer = io.BytesIO()
    Picture.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def main(folder: Path) -> None:
    """Write the two Parquet files."""
    features = Features({"image": Image(), "label": ClassLabel(names=NAMES)})
    for split, (prefix, per_class) in FILES.items():
        images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
        rows = first_rows(labels, per_class)
        columns = {
            "image": [{"bytes": png(images[row]), "path": None} for row in rows],
            "label": labels[rows].tolist(),
        }
        Dataset.from_dict(columns, features=features).to_parquet(OUT / f"{split}.parquet")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
