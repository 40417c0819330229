"""A sheet of the views that a training batch holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as pl
import torch
from spt_augment import GPUTransformMixin
from torch import Tensor

from stable_pretraining.pictures._figure import format_of, new_figure, save, show_image


def draw_views(batch: Mapping[str, Any], path: str | Path, *, rows: int = 6) -> Path:
    """Draw the first images of a batch as training sees them, one row an image, one column a view.

    Args:
        batch: A collated batch after its transforms: with ``views``, with named crops (``global_0``, ...),
            or with a single ``image``.
        path: Where the picture goes; its ending is the format (png, svg, pdf, html).
        rows: Images to draw, at most.

    Returns:
        The path.

    Raises:
        ValueError: If the batch holds no images, or the ending is no format.

    Example:
        >>> import tempfile, torch
        >>> batch = {"image": torch.rand(2, 3, 8, 8)}
        >>> draw_views(batch, tempfile.mkdtemp() + "/views.png").name
        'views.png'
    """
    format_of(path)
    views = views_of(batch)
    if not views:
        raise ValueError(
            "The batch has neither `views` nor named crops nor an `image` that is a tensor "
            f"(N, C, H, W); it has {sorted(map(str, batch))}."
        )
    count = min(rows, *(len(images) for images in views.values()))
    figure = new_figure(1.6 * len(views), 1.6 * count + 0.3)
    grid = figure.subplots(count, len(views), squeeze=False)
    for column, (name, images) in enumerate(views.items()):
        grid[0, column].set_title(name, fontsize=8)
        for row in range(count):
            show_image(grid[row, column], images[row])
    return save(figure, path, "Views")


def training_batch(data: pl.LightningDataModule) -> Any:
    """The first training batch on the CPU, as a module gets it: after the data's own transform."""
    taker = _TakesOne()
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        limit_train_batches=1,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(taker, datamodule=data)
    return taker.batch


class _TakesOne(GPUTransformMixin, pl.LightningModule):
    """Keeps the batch, learns nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.batch: Any = None

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.batch = batch

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Never called; without it Lightning warns of data that have a loader for it."""

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return []  # of `None` Lightning warns


def views_of(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """Name and images ``(N, C, H, W)`` of every view in a batch."""
    if "views" in batch:
        named = {f"view {i}": view for i, view in enumerate(batch["views"])}
    else:
        named = {str(name): crop for name, crop in batch.items() if isinstance(crop, Mapping)}
        named = named or {"image": batch}
    images = {name: view.get("image") for name, view in named.items()}
    return {name: x for name, x in images.items() if isinstance(x, Tensor) and x.ndim == 4}
