"""The demo's run with JAX and Flax NNX: the same images, the same report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from flax import nnx
from torch import Tensor

from stable_pretraining._lazy import load
from stable_pretraining.demo.features import Outcome, Split

BATCH_SIZE = 256
WIDTHS = (16, 32, 64)


def pretrain(train: Split, test: Split, *, cache_dir: Path, epochs: int, seed: int) -> Outcome:
    """Train for ``epochs`` under the Manager and embed both splits before and after."""
    spj: Any = load("spt_jax", "jax")
    rngs = nnx.Rngs(seed)
    module = build_module(spj, rngs)
    splits = (as_arrays(train), as_arrays(test))
    loader = spj.ArrayLoader(splits[0], BATCH_SIZE, shuffle=True, seed=seed)
    calibrate(module.backbone, splits[0]["image"])
    untrained = embed_both(module, splits)
    trainer = spj.Trainer(
        max_epochs=epochs,
        seed=seed,
        callbacks=[
            spj.OnlineProbe("probe", nnx.Linear(WIDTHS[-1], 10, rngs=rngs), optim={"lr": 3e-3}),
            spj.OnlineKNN(num_classes=10, bank_size=6144),
            spj.RankMe(queue_length=2048),
        ],
    )
    manager = spj.Manager(
        trainer, module, loader, spj.ArrayLoader(splits[1], BATCH_SIZE), cache_dir=cache_dir
    )
    manager()
    return Outcome(run_dir=manager.run_dir, trained=embed_both(module, splits), untrained=untrained)


def build_module(spj: Any, rngs: nnx.Rngs) -> Any:
    """SimCLR on a ResNet of three basic blocks."""
    block = spj.backbone.BasicBlock
    view = spj.augment.Recipe(
        28, (0.4, 1.0), jitter=(0.6, 0.6, 0.0, 0.0), gray=0.0, mean=None, std=None
    )
    backbone = spj.backbone.ResNet(block, (1, 1, 1), widths=WIDTHS, rngs=rngs, in_channels=1)
    return spj.SimCLR(
        backbone,
        embed_dim=WIDTHS[-1],
        rngs=rngs,
        projector_dims=(128, 64),
        temperature=0.1,
        optim={
            "optimizer": {"type": "adamw", "lr": 2e-3, "weight_decay": 1e-4},
            "scheduler": {"type": "LinearWarmupCosineAnnealing", "peak_step": 0.1},
        },
        transform=spj.augment.multi_view_transform([view, view]),
        hparams={"backbone": "resnet, 3 blocks", "batch_size": BATCH_SIZE},
    )


def as_arrays(split: Split) -> dict[str, np.ndarray]:
    """Images ``(N, H, W, 1)`` and labels."""
    images = split.images.permute(0, 2, 3, 1).numpy()
    return {"image": images, "label": split.labels.numpy().astype(np.int32)}


def calibrate(backbone: nnx.Module, images: np.ndarray) -> None:
    """Give BatchNorm the statistics of the images; no weight changes."""
    backbone.train()
    step = nnx.jit(lambda model, x: model(x))
    for start in range(0, 20 * BATCH_SIZE, BATCH_SIZE):
        step(backbone, images[start : start + BATCH_SIZE])


def embed_both(module: Any, splits: tuple[dict[str, np.ndarray], ...]) -> tuple[Tensor, Tensor]:
    """Features of the clean images of both splits, in eval mode."""
    backbone = module.backbone
    backbone.eval()
    forward = nnx.jit(lambda model, x: model(x))
    found = []
    for split in splits:
        images = split["image"]
        parts = [forward(backbone, images[i : i + 500]) for i in range(0, len(images), 500)]
        found.append(torch.from_numpy(np.concatenate(jax.device_get(parts))))
    backbone.train()
    return found[0], found[1]
