"""The JAX mirror in one screen: a forward that returns a dict, on random points.

python examples/jax_minimal.py [--max-steps N]
"""

from __future__ import annotations

import argparse

import jax
import numpy as np
import spt_jax as spj
from flax import nnx


def two_noisy(key, batch):
    """Two noisy versions of each point."""
    noise = 0.1 * jax.random.normal(key, (2, *batch["image"].shape))
    return {**batch, "views": [{"image": batch["image"] + part} for part in noise]}


def forward(self, batch, stage):
    """VICReg between both versions."""
    if stage != "fit":
        return {"embedding": self.backbone(batch["image"])}
    first, second = (self.backbone(view["image"]) for view in batch["views"])
    return {"embedding": first, "loss": self.vicreg_loss(first, second)}


def main(max_steps: int) -> dict[str, float]:
    """Train, and return the last metrics."""
    points = np.random.default_rng(0).normal(size=(1024, 32)).astype(np.float32)
    rngs = nnx.Rngs(0)
    module = spj.Module(
        forward=forward,
        backbone=spj.backbone.MLP(32, (128, 16), rngs=rngs),
        transform=two_noisy,
        vicreg_loss=spj.losses.VICRegLoss(),
        optim={"optimizer": {"type": "AdamW", "lr": 1e-3}},
    )
    loader = spj.ArrayLoader({"image": points}, batch_size=128, shuffle=True)
    trainer = spj.Trainer(max_steps=max_steps, log_every_n_steps=1)
    trainer.fit(module, loader)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-steps", type=int, default=200)
    print(main(parser.parse_args().max_steps))
