"""A figure without a window, and the file it goes to."""

from __future__ import annotations

import html
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spt_registry.run.files import atomic_write_bytes

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = ("png", "svg", "pdf", "html")
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body {{ margin: 2rem; font-family: sans-serif }} svg {{ max-width: 100%; height: auto }}</style>
</head><body><h1>{title}</h1>
{picture}
</body></html>
"""


def new_figure(width: float, height: float) -> Any:
    """A figure of so many inches.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Pictures need matplotlib, which comes with an extra: "
            'pip install "stable-pretraining[visualization]"'
        ) from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def format_of(path: str | Path) -> str:
    """The format that the ending of ``path`` stands for.

    Raises:
        ValueError: If it stands for none.
    """
    ending = Path(path).suffix.removeprefix(".").lower()
    if ending not in FORMATS:
        endings = ", ".join(f".{name}" for name in FORMATS)
        raise ValueError(f"The ending of {str(path)!r} is no format; give one of {endings}.")
    return ending


def save(figure: Any, path: str | Path, title: str) -> Path:
    """Write the figure, whole or not at all, in the format of the file's ending."""
    path, kind = Path(path).expanduser(), format_of(path)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg" if kind == "html" else kind, dpi=110)
    content = buffer.getvalue()
    if kind == "html":
        drawn = content.decode()
        page = PAGE.format(title=html.escape(title), picture=drawn[drawn.index("<svg") :])
        content = page.encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(path, content)
    return path


def show_image(axes: Any, image: Tensor) -> None:
    """Show one image ``(C, H, W)``, its own range mapped to black and white if it leaves [0, 1]."""
    pixels = image.detach().float().cpu()
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        pixels = (pixels - low) / max(high - low, 1e-12)
    if len(pixels) == 3:
        axes.imshow(pixels.permute(1, 2, 0).numpy())
    else:
        axes.imshow(pixels[0].numpy(), cmap="gray", vmin=0, vmax=1)
    bare(axes)


def bare(axes: Any) -> None:
    """Without ticks."""
    axes.set_xticks([])
    axes.set_yticks([])
