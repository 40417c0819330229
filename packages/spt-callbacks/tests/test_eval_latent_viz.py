"""The map of embeddings: its loss by the formula, what it learns, and its pictures."""

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import Logger
from spt_callbacks import LatentViz
from spt_callbacks.evaluation.latent_viz import neighbour_loss
from torch import nn

pytestmark = pytest.mark.filterwarnings("ignore:.*dataloader.*")


def test_the_loss_by_its_definition():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(12, 2, generator=generator, dtype=torch.float64)
    neighbours = torch.stack([torch.randperm(12, generator=generator)[:3] for _ in range(12)])

    def share(i, j):
        q = 1 / (1 + ((points[i] - points[j]) ** 2).sum().item())
        return q / (1 + q)

    torch.manual_seed(3)
    others = torch.randint(12, (12, 6))
    torch.manual_seed(3)
    attraction, repulsion = neighbour_loss(points, neighbours, n_negatives=2)
    near = [-np.log(share(i, j)) for i in range(12) for j in neighbours[i].tolist()]
    far = [-np.log(1 - share(i, j)) for i in range(12) for j in others[i].tolist()]
    assert attraction.item() == pytest.approx(np.mean(near), rel=1e-6)
    assert repulsion.item() == pytest.approx(np.mean(far), rel=1e-6)


class Pictures(Logger):
    """Takes images as Weights & Biases does."""

    name, version = "pictures", 0

    def __init__(self):
        super().__init__()
        self.images = []
        self.metrics = []

    def log_metrics(self, metrics, step=None):
        self.metrics.append(metrics)

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_image(self, key, images, step=None):
        self.images.append((key, images, step))


class Board(Pictures):
    """Takes images as TensorBoard does."""

    log_image = None

    def __init__(self):
        super().__init__()
        del self.images
        self.added = []

    @property
    def experiment(self):
        return self

    def add_image(self, name, picture, step, dataformats):
        self.added.append((name, picture.shape, picture.dtype, step, dataformats))

    def __getattribute__(self, name):
        if name == "log_image":
            raise AttributeError(name)
        return super().__getattribute__(name)


def test_a_map_is_learned_drawn_and_logged(plain, loaders, make_trainer, tmp_path):
    viz = LatentViz(
        "map",
        projection=lambda module: nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2)),
        queue_length=90,
        k_neighbors=5,
        update_interval=1,
        optimizer={"type": "Adam", "lr": 0.02},
        plot_interval=4,
        save_dir="maps",
        verbose=True,
    )
    pictures, board = Pictures(), Board()
    trainer = make_trainer(
        [viz], max_epochs=9, logger=[pictures, board], log_every_n_steps=1, num_sanity_val_steps=2
    )
    trainer.fit(plain(), *loaders)
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert names == [f"epoch_000{e}.{kind}" for e in (0, 4, 8) for kind in ("npz", "png")]
    assert (tmp_path / "maps" / "epoch_0008.png").read_bytes().startswith(b"\x89PNG")
    assert [(key, step) for key, _, step in pictures.images] == [
        ("map", 6),
        ("map", 30),
        ("map", 54),
    ]
    assert pictures.images[0][1] == [str(tmp_path / "maps" / "epoch_0000.png")]
    name, shape, dtype, step, layout = board.added[-1]
    assert (name, shape[2], dtype, step, layout) == ("map", 3, np.uint8, 54, "HWC")

    found = np.load(tmp_path / "maps" / "epoch_0008.npz")
    points, labels = found["coordinates"], found["labels"]
    assert points.shape == (90, 2)
    distance = np.linalg.norm(points[:, None] - points[None], axis=2) + 1e9 * np.eye(90)
    assert (labels[distance.argmin(1)] == labels).mean() > 0.8  # classes stay together
    losses = [m["train/map_loss"] for m in pictures.metrics if "train/map_loss" in m]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert any("train/map_attraction_loss" in m for m in pictures.metrics)


def test_warmup_and_interval_are_kept(plain, loaders, make_trainer):
    viz = LatentViz(
        projection=nn.Linear(6, 2), target=None, warmup_epochs=1, update_interval=4,
        k_neighbors=3, queue_length=40,
    )  # fmt: skip
    make_trainer([viz], max_epochs=3).fit(plain(), loaders[0])
    assert viz.head.steps == 3  # batches 8, 12 and 16 of 18
    with pytest.raises(ValueError, match="`k_neighbors` of LatentViz 'latent_viz' must be >= 1"):
        LatentViz(projection=nn.Linear(6, 2), k_neighbors=0)
    with pytest.raises(TypeError, match="LatentViz 'latent_viz' must be a module or a function"):
        LatentViz()


def test_a_map_is_saved_and_resumed(plain, loaders, make_trainer, tmp_path):
    def run(**kwargs):
        torch.manual_seed(0)
        viz = LatentViz(projection_module=nn.Linear(6, 2), update_interval=1, k_neighbors=3)
        trainer = make_trainer([viz], max_epochs=1)
        trainer.fit(plain(), loaders[0], **kwargs)
        return viz, trainer

    viz, trainer = run()
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    resumed, _ = run(ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert torch.equal(resumed.head.module.weight, viz.head.module.weight)
