"""Metrics of runs over their steps."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stable_pretraining.pictures._figure import format_of, new_figure, save

if TYPE_CHECKING:
    import pandas as pd

USUAL = ("fit/loss", "fit/loss_step", "eval/*", "*rankme*", "*lidar*")
COLUMNS = 3


def plot_runs(
    runs: Mapping[str, pd.DataFrame], path: str | Path, metrics: Sequence[str] = USUAL
) -> Path:
    """Draw metrics of several runs over their steps, one panel a metric, one line a run.

    Args:
        runs: Name and history of each run, as :meth:`spt_registry.Registry.history` gives it.
        path: Where the picture goes; its ending is the format (png, svg, pdf, html).
        metrics: Names or patterns (``eval/*``) of what to draw, by default losses, ``eval/*``, RankMe, LiDAR.

    Returns:
        The path.

    Raises:
        ValueError: If no run has any of the metrics, or the ending is no format.

    Example:
        >>> import pandas as pd, tempfile
        >>> history = pd.DataFrame({"step": [0, 1], "fit/loss": [2.0, 1.0]})
        >>> plot_runs({"first": history}, tempfile.mkdtemp() + "/curves.svg").name
        'curves.svg'
    """
    format_of(path)
    names = chosen(runs.values(), metrics)
    if not names:
        logged = sorted({str(name) for history in runs.values() for name in history} - {"step"})
        raise ValueError(f"No run has a metric like {list(metrics)}; they have {logged}.")
    rows = math.ceil(len(names) / COLUMNS)
    across = min(COLUMNS, len(names))
    figure = new_figure(4.5 * across, 3.2 * rows + 0.4)
    panels = figure.subplots(rows, across, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        draw_panel(axes, name, runs)
    for axes in panels[len(names) :]:
        axes.remove()
    if len(runs) > 1:
        lines = {line.get_label(): line for axes in panels[: len(names)] for line in axes.lines}
        shown = [name for name in runs if name in lines]
        figure.legend([lines[name] for name in shown], shown, loc="outside upper center", ncols=4)
    return save(figure, path, ", ".join(runs))


def chosen(histories: Iterable[pd.DataFrame], patterns: Sequence[str]) -> list[str]:
    """Columns that fit a pattern, in the order of the patterns; a loss by step only without its mean."""
    columns = sorted({str(name) for history in histories for name in history} - {"step", "epoch"})
    fitting = [name for pattern in patterns for name in fnmatch.filter(columns, pattern)]
    names = list(dict.fromkeys(fitting))
    if patterns is USUAL and "fit/loss" in names and "fit/loss_step" in names:
        names.remove("fit/loss_step")
    return names


def draw_panel(axes: Any, name: str, runs: Mapping[str, pd.DataFrame]) -> None:
    """One metric of all runs that have it; the colour of a run is the same in every panel."""
    for number, (run, history) in enumerate(runs.items()):
        if name not in history:
            continue
        rows = history[["step", name]].dropna()
        marker = "o" if len(rows) == 1 else None
        axes.plot(
            rows["step"], rows[name], color=f"C{number % 10}", label=run, marker=marker, lw=1.5
        )
    axes.set_title(name, fontsize=10)
    axes.set_xlabel("training step", fontsize=9)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
