"""A 2-D map of the embeddings, learned while the model trains.

A parametric map by neighbour attraction and sampled repulsion, between t-SNE (van der Maaten and
Hinton, 2008) and parametric UMAP (Sainburg et al., 2021, https://arxiv.org/abs/2009.12981).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as pl
import torch
from torch import Tensor, nn

from spt_callbacks._files import whole_file
from spt_callbacks.evaluation._head import Head, WithHead
from spt_callbacks.evaluation._scatter import draw_scatter, show_picture
from spt_callbacks.evaluation.nearest import Bank, Distance, check_metric
from spt_callbacks.keys import Key
from spt_callbacks.queue import queues_of
from spt_callbacks.queue_reader import QueueReader

OPTIMIZER = {"type": "AdamW", "lr": 1e-3, "weight_decay": 1e-2}


def neighbour_loss(
    points: Tensor, neighbours: Tensor, *, n_negatives: int = 5
) -> tuple[Tensor, Tensor]:
    """Attraction of neighbours and repulsion of random pairs on a map.

    With ``q = 1 / (1 + |z_i - z_j|^2)`` and ``p = q / (1 + q)``, attraction is the mean of ``-log p``
    over neighbours and repulsion that of ``-log(1 - p)`` over random pairs.

    Args:
        points: The map ``(N, 2)``.
        neighbours: Indices ``(N, k)`` of each point's neighbours in the space that is mapped.
        n_negatives: Random pairs for each pair of neighbours.

    Returns:
        Both as scalars.
    """
    n, k = neighbours.shape
    others = torch.randint(n, (n, k * n_negatives), device=points.device)
    near, far = (_closeness(points, index) for index in (neighbours, others))
    return -(near + 1e-10).log().mean(), -(1 - far).clamp(min=1e-10).log().mean()


def _closeness(points: Tensor, index: Tensor) -> Tensor:
    q = 1 / (1 + (points[:, None] - points[index]).square().sum(-1))
    return q / (1 + q)


class LatentViz(WithHead, QueueReader):
    """Learn a 2-D map of the newest training embeddings and draw it after validation.

    Logs ``train/{name}_loss``. On rank 0 each drawn epoch leaves ``epoch_0007.png`` and
    ``epoch_0007.npz`` (``coordinates`` ``(N, 2)``, ``labels``) in ``save_dir``, and the picture goes to
    every logger that takes images. Needs matplotlib: ``pip install "spt-callbacks[viz]"``.

    Args:
        name: Name in the logs.
        input: Key of the embeddings.
        target: Key of the classes that colour the points; ``None`` for one colour.
        projection: From embeddings ``(N, D)`` to ``(N, 2)``: a module, or a function of the
            LightningModule that makes it.
        queue_length: Embeddings kept and drawn.
        k_neighbors: Neighbours that attract each other.
        n_negatives: Random pairs for each pair of neighbours.
        optimizer: As for ``spt_optim.create_optimizer``; AdamW by default.
        scheduler: As for ``spt_optim.create_scheduler``, stepped with the map's updates.
        accumulate_grad_batches: Updates per optimizer step.
        update_interval: Training batches from one update to the next.
        warmup_epochs: Epochs without updates at first.
        distance_metric: In the space of the embeddings; see :class:`OnlineKNN`.
        plot_interval: Validation epochs from one drawing to the next.
        save_dir: Folder; a relative one lies in the Trainer's ``default_root_dir``.
        input_dim: Shape of an embedding, checked if given; several dimensions are flattened.
        verbose: Also log ``train/{name}_attraction_loss`` and ``..._repulsion_loss``.
        projection_module: Another name of ``projection``.

    Raises:
        TypeError: If there is no projection.
        ValueError: If a setting is out of range.
    """

    def __init__(
        self,
        name: str = "latent_viz",
        input: Key = "embedding",
        target: Key | None = "label",
        projection: nn.Module | Callable[[pl.LightningModule], nn.Module] | None = None,
        queue_length: int = 2048,
        k_neighbors: int = 15,
        n_negatives: int = 5,
        optimizer: Any = None,
        scheduler: Any = None,
        accumulate_grad_batches: int = 1,
        update_interval: int = 10,
        warmup_epochs: int = 0,
        distance_metric: Distance = "euclidean",
        plot_interval: int = 1,
        save_dir: str | Path | None = None,
        input_dim: int | tuple[int, ...] | None = None,
        verbose: bool | None = None,
        *,
        projection_module: nn.Module | Callable[[pl.LightningModule], nn.Module] | None = None,
    ) -> None:
        counts = {
            "k_neighbors": k_neighbors,
            "n_negatives": n_negatives,
            "update_interval": update_interval,
            "plot_interval": plot_interval,
        }
        for label, value in counts.items():
            if value < 1:
                raise ValueError(f"`{label}` of LatentViz {name!r} must be >= 1, got {value}.")
        check_metric(distance_metric)
        keys = (input,) if target is None else (input, target)
        super().__init__(name, keys, queue_length, shape=input_dim)
        self.k_neighbors = k_neighbors
        self.n_negatives = n_negatives
        self.update_interval = update_interval
        self.warmup_epochs = warmup_epochs
        self.distance_metric = distance_metric
        self.plot_interval = plot_interval
        self.save_dir = Path(save_dir) if save_dir is not None else Path(f"latent_viz_{name}")
        self.verbose = verbose
        self.head = Head(
            self.caller,
            projection if projection is not None else projection_module,
            OPTIMIZER if optimizer is None else optimizer,
            scheduler,
            accumulate_grad_batches,
        )

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Add this batch's rows, and from time to time improve the map."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        due = (trainer.fit_loop.total_batch_idx + 1) % self.update_interval == 0
        if not due or trainer.current_epoch < self.warmup_epochs:
            return
        (rows,) = queues_of(trainer).snapshot(self.keys[:1], self.queue_length, gather=False) or (
            None,
        )
        if rows is not None and len(rows) > self.k_neighbors + 1:
            self._improve(pl_module, rows.flatten(1).to(self.head.dtype))

    def _improve(self, pl_module: pl.LightningModule, rows: Tensor) -> None:
        assert self.head.module is not None
        with torch.enable_grad(), self.head.isolated(rows.device):
            _, index = Bank(rows, self.distance_metric).nearest(rows, self.k_neighbors + 1)
            self.head.module.train()
            attraction, repulsion = neighbour_loss(
                self.head.module(rows), index[:, 1:], n_negatives=self.n_negatives
            )
            self.head.descend(attraction + repulsion)
        values = {f"train/{self.name}_loss": (attraction + repulsion).detach()}
        if self.verbose:
            values[f"train/{self.name}_attraction_loss"] = attraction.detach()
            values[f"train/{self.name}_repulsion_loss"] = repulsion.detach()
        pl_module.log_dict(values, on_step=True, on_epoch=False, batch_size=len(rows))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the map."""
        due = trainer.current_epoch % self.plot_interval == 0
        found = self.recent(trainer) if due and not trainer.sanity_checking else None
        if found is None or not trainer.is_global_zero:
            return
        module = self.head.place(pl_module)
        rows = found[0].to(pl_module.device).flatten(1).to(self.head.dtype)
        with torch.no_grad(), self.head.isolated(rows.device):
            module.eval()
            points = module(rows).cpu().numpy()
        labels = found[1].cpu().numpy() if len(found) > 1 else None
        self._save(trainer, points, labels)

    def _save(self, trainer: pl.Trainer, points: Any, labels: Any) -> None:
        import numpy as np  # comes with matplotlib, in the extra

        folder = Path(trainer.default_root_dir) / self.save_dir
        stem = f"epoch_{trainer.current_epoch:04d}"
        arrays: dict[str, Any] = {"coordinates": points} | (
            {} if labels is None else {"labels": labels}
        )
        with whole_file(folder / f"{stem}.npz") as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)
        title = f"{self.name}, epoch {trainer.current_epoch}"
        with whole_file(folder / f"{stem}.png") as temporary:
            picture = draw_scatter(points, labels, title, temporary)
        show_picture(trainer, self.name, folder / f"{stem}.png", picture)
