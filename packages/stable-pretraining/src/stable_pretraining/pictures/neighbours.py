"""A sheet of queries and their nearest neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stable_pretraining.pictures._figure import format_of, new_figure, save, show_image

if TYPE_CHECKING:
    from torch import Tensor


def draw_neighbours(
    features: tuple[Tensor, Tensor],
    images: tuple[Tensor, Tensor],
    path: str | Path,
    *,
    labels: tuple[Tensor, Tensor] | None = None,
    queries: list[int] | None = None,
    k: int = 7,
) -> Path:
    """Draw some queries (left) and the images that are nearest to them by cosine similarity.

    Args:
        features: Of the bank ``(N, D)`` and of the queries ``(M, D)``.
        images: Of the bank ``(N, C, H, W)`` and of the queries ``(M, C, H, W)``.
        path: Where the picture goes; its ending is the format (png, svg, pdf, html).
        labels: Classes ``(N,)`` and ``(M,)``: neighbours of the query's class are framed green, others red.
        queries: Rows of the queries to draw, by default the first five.
        k: Neighbours of each.

    Returns:
        The path.

    Raises:
        ValueError: If the ending is no format.
    """
    format_of(path)
    queries = list(range(min(5, len(features[1])))) if queries is None else queries
    figure = new_figure(1.3 * (k + 1), 1.35 * len(queries))
    draw_sheet(figure, features, images, labels, queries, k)
    return save(figure, path, "Nearest neighbours")


def draw_sheet(
    figure: Any,
    features: tuple[Tensor, Tensor],
    images: tuple[Tensor, Tensor],
    labels: tuple[Tensor, Tensor] | None,
    queries: list[int],
    k: int,
) -> None:
    """The sheet of :func:`draw_neighbours` on a figure or a part of one."""
    found = nearest(features, queries, k)
    grid = figure.subplots(len(queries), k + 1, squeeze=False)
    for row, query, neighbours in zip(grid, queries, found, strict=True):
        show_image(row[0], images[1][query])
        for axes, index in zip(row[1:], neighbours, strict=True):
            show_image(axes, images[0][index])
            if labels is not None:
                same = bool(labels[0][index] == labels[1][query])
                axes.spines[:].set_color("#16a34a" if same else "#dc2626")
                axes.spines[:].set_linewidth(2)


def nearest(features: tuple[Tensor, Tensor], queries: list[int], k: int) -> list[list[int]]:
    """Rows of the bank that are most cosine-similar to some of the queries."""
    from torch.nn.functional import normalize

    bank, rows = (normalize(x.flatten(1).float(), dim=1) for x in features)
    ranked: list[list[int]] = (rows[queries] @ bank.T).topk(k, dim=1).indices.tolist()
    return ranked
