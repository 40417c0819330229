"""Drawing points of classes, and handing pictures to loggers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as pl


def draw_scatter(points: Any, labels: Any, title: str, path: Path) -> Any:
    """Draw points, an array ``(N, 2)``, into a PNG file, coloured by class ``(N,)``.

    Returns:
        The picture, uint8 ``(height, width, 3)``.

    Raises:
        ImportError: If matplotlib is missing.
    """
    try:
        import numpy as np
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'LatentViz draws with matplotlib: pip install "spt-callbacks[viz]".'
        ) from error
    cmap = None if labels is None else "tab20"
    figure = Figure(figsize=(6, 6), dpi=120, layout="tight")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.scatter(points[:, 0], points[:, 1], s=6, linewidths=0, c=labels, cmap=cmap)
    axes.set(title=title, xticks=[], yticks=[])
    figure.savefig(path, format="png")
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def show_picture(trainer: pl.Trainer, name: str, path: Path, picture: Any) -> None:
    """Give a picture to every logger that takes images: by ``log_image``, or as TensorBoard does."""
    for logger in trainer.loggers:
        if hasattr(logger, "log_image"):
            logger.log_image(key=name, images=[str(path)], step=trainer.global_step)
            continue
        experiment: Any = getattr(logger, "experiment", None)
        if hasattr(experiment, "add_image"):
            experiment.add_image(name, picture, trainer.global_step, dataformats="HWC")
