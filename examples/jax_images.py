"""SimCLR with JAX on the bundled images, under the Manager: probes, kNN and rank are part of the two programs.

python examples/jax_images.py [--max-steps N] [--cache-dir DIR]
"""

from __future__ import annotations

import argparse
from typing import Literal

import numpy as np
import spt_jax as spj
from flax import nnx
from spt_data import sample_dataset

WIDTHS = (16, 32, 64)


def load(split: Literal["train", "test"]) -> dict[str, np.ndarray]:
    """Images ``(N, 28, 28, 1)`` in [0, 1] and labels."""
    rows = [*sample_dataset(split)]
    images = np.stack([np.asarray(row["image"]) for row in rows])
    labels = np.array([row["label"] for row in rows], np.int32)
    return {"image": images[..., None].astype(np.float32) / 255, "label": labels}


def main(max_steps: int, cache_dir: str) -> dict[str, float]:
    """Train, and return the last metrics."""
    rngs = nnx.Rngs(0)
    block = spj.backbone.BasicBlock
    module = spj.SimCLR(
        spj.backbone.ResNet(block, (1, 1, 1), widths=WIDTHS, rngs=rngs, in_channels=1),
        embed_dim=WIDTHS[-1],
        rngs=rngs,
        projector_dims=(128, 64),
        temperature=0.2,
        optim={
            "optimizer": {"type": "adamw", "lr": 2e-3},
            "scheduler": "LinearWarmupCosineAnnealing",
        },
        transform=spj.augment.two_view_transform(28, normalize_output=False, scale=(0.3, 1.0)),
    )
    trainer = spj.Trainer(
        max_steps=max_steps,
        callbacks=[
            spj.OnlineProbe("probe", nnx.Linear(WIDTHS[-1], 10, rngs=rngs)),
            spj.OnlineKNN(num_classes=10, bank_size=4096),
            spj.RankMe(queue_length=1024),
        ],
    )
    train = spj.ArrayLoader(load("train"), 256, shuffle=True)
    test = spj.ArrayLoader(load("test"), 250)
    spj.Manager(trainer, module, train, test, cache_dir=cache_dir)()
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-steps", type=int, default=180)
    parser.add_argument("--cache-dir", default="~/runs")
    given = parser.parse_args()
    print(main(given.max_steps, given.cache_dir))
