"""One picture of a demo run: its curves, and the neighbours of some held-out images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stable_pretraining.demo.features import Outcome, Split
from stable_pretraining.pictures._figure import new_figure, save
from stable_pretraining.pictures.neighbours import draw_sheet

if TYPE_CHECKING:
    import pandas as pd

NEIGHBOURS = 7


def curve(history: pd.DataFrame, *names: str) -> tuple[list[float], list[float]]:
    """Steps and values of the first of ``names`` that was logged."""
    for name in names:
        if name in history:
            rows = history[["step", name]].dropna()
            return rows["step"].tolist(), rows[name].tolist()
    raise KeyError(f"None of {list(names)} was logged; the run has {sorted(history.columns)}.")


def draw(history: pd.DataFrame, outcome: Outcome, train: Split, test: Split, path: Path) -> Path:
    """Draw the curves and the neighbours into a PNG.

    Args:
        history: Logged metrics, one row per step, with a column ``step``.
        outcome: The finished run.
        train: The images in which neighbours are looked up.
        test: The held-out images.
        path: Where the picture goes.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
    """
    figure = new_figure(13, 9)
    parts: Any = figure.subfigures(2, 1, height_ratios=[1, 1.6])
    curves, sheet = parts
    draw_curves(curves, history)
    draw_held_out(sheet, outcome, train, test)
    return save(figure, path, "Demo")


def draw_curves(figure: Any, history: pd.DataFrame) -> None:
    """Loss, probe, kNN and RankMe over the training steps."""
    panels: list[tuple[str, tuple[str, ...], float]] = [
        ("NT-Xent loss", ("fit/loss_step", "fit/loss"), 1),
        ("linear probe, accuracy (%)", ("eval/probe_acc",), 100),
        ("kNN, accuracy (%)", ("eval/knn_acc",), 100),
        ("RankMe", ("rankme",), 1),
    ]
    for axes, (title, names, scale) in zip(figure.subplots(1, 4), panels, strict=True):
        steps, values = curve(history, *names)
        axes.plot(steps, [scale * value for value in values], color="#4f46e5", linewidth=1.5)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("training step", fontsize=9)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)


def draw_held_out(figure: Any, outcome: Outcome, train: Split, test: Split) -> None:
    """One row for each of five held-out images: itself, then its neighbours."""
    queries = [int((test.labels == label).nonzero()[0]) for label in (0, 1, 5, 7, 8)]
    figure.suptitle(
        "Held-out images (left) and their nearest training images; green: same class", fontsize=10
    )
    images, labels = (train.images, test.images), (train.labels, test.labels)
    draw_sheet(figure, outcome.trained, images, labels, queries, NEIGHBOURS)
