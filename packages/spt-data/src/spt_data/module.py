"""The data module under its longer path, and the older name of a dataset of named tuples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spt_data.datamodule import DataModule as DataModule
from spt_data.datasets import FromTorchDataset


class DictFormat(FromTorchDataset):
    """Name the fields of a dataset of tuples and add nothing; see ``FromTorchDataset``.

    Args:
        dataset: Map-style dataset of tuples.
        names: One name per field.

    Example:
        >>> DictFormat([("a", 0)], names=["image", "label"])[0]
        {'image': 'a', 'label': 0}
    """

    def __init__(self, dataset: Any, names: Sequence[str]) -> None:
        super().__init__(dataset, names, add_sample_idx=False)
