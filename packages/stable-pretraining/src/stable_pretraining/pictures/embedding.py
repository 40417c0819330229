"""A map of embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stable_pretraining.pictures._figure import bare, format_of, new_figure, save

if TYPE_CHECKING:
    from torch import Tensor


def draw_embedding(
    features: Tensor, path: str | Path, *, labels: Tensor | None = None, seed: int = 0
) -> Path:
    """Draw a t-SNE map of features, coloured by class.

    The map is scikit-learn's, of the 50 first principal components, by cosine distance. It shows which
    images are near each other; distances between clusters and their sizes mean nothing.

    Args:
        features: ``(N, D)``, more than 2 rows.
        path: Where the picture goes; its ending is the format (png, svg, pdf, html).
        labels: Classes ``(N,)``.
        seed: Of the map.

    Returns:
        The path.

    Raises:
        ModuleNotFoundError: If scikit-learn or matplotlib is not installed.
        ValueError: If the ending is no format, or there are fewer than 3 rows.
    """
    format_of(path)
    if features.ndim != 2 or len(features) < 3:
        raise ValueError(f"A map needs features (N, D) with N > 2, got {tuple(features.shape)}.")
    try:
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "The map needs scikit-learn, which comes with an extra: "
            'pip install "stable-pretraining[visualization]"'
        ) from error
    rows = features.detach().float().cpu().numpy()
    rows = PCA(min(50, *rows.shape), random_state=seed).fit_transform(rows)
    tsne = TSNE(
        metric="cosine", init="random", perplexity=min(30, (len(rows) - 1) / 3), random_state=seed
    )
    points = tsne.fit_transform(rows)
    figure = new_figure(6, 6)
    axes = figure.add_subplot()
    if labels is None:
        axes.scatter(points[:, 0], points[:, 1], s=6)
    else:
        classes = labels.cpu().numpy()
        for number, name in enumerate(sorted(set(classes.tolist()))):
            own = points[classes == name]
            axes.scatter(own[:, 0], own[:, 1], s=6, color=f"C{number % 10}", label=str(name))
        axes.legend(markerscale=3, fontsize=8, frameon=False)
    bare(axes)
    return save(figure, path, "Map of the embeddings")
