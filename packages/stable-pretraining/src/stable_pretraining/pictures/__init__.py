"""Pictures of runs, of data and of features: curves, views, neighbours, maps, attention.

Each function draws one picture into a file, whose ending says the format: ``.png``, ``.svg``, ``.pdf``, or
``.html`` for a page that needs nothing else. Needs matplotlib, which comes with the extra ``visualization``.
"""

from stable_pretraining.pictures.attention import attention_maps, draw_attention
from stable_pretraining.pictures.curves import plot_runs
from stable_pretraining.pictures.embedding import draw_embedding
from stable_pretraining.pictures.neighbours import draw_neighbours
from stable_pretraining.pictures.views import draw_views, training_batch

__all__ = [
    "attention_maps",
    "draw_attention",
    "draw_embedding",
    "draw_neighbours",
    "draw_views",
    "plot_runs",
    "training_batch",
]
