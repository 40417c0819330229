"""Which block, learning rate and pooling of tokens suits a linear probe best? All at once, live.

    python examples/multi_layer_probing.py [--max-steps N]

A small vision transformer trains with labels. ``EmbeddingCache`` keeps what some of its blocks say, and a sweep
trains a head for each block, rate and pooling as batched matmuls, as DINOv2 does after pretraining.
"""

from __future__ import annotations

import argparse

import lightning as pl
import stable_pretraining as spt
from stable_pretraining.data import transforms
from torch import nn
from torch.utils.data import DataLoader

BLOCKS = ["backbone.blocks.0", "backbone.blocks.1", "backbone.blocks.3"]


def main(max_steps: int) -> dict[str, float]:
    """Train, and return the last metrics."""
    pl.seed_everything(0)
    to_image = transforms.ToImage()
    train = spt.data.sample_dataset("train", transform=to_image)
    test = spt.data.sample_dataset("test", transform=to_image)
    data = spt.data.DataModule(
        train=DataLoader(train, batch_size=128, shuffle=True, drop_last=True),
        val=DataLoader(test, batch_size=250),
    )
    module = spt.Module(
        forward=spt.forward.supervised,
        backbone=spt.backbone.from_timm(
            "vit_tiny_patch16_224", num_classes=0, in_chans=1, img_size=28, patch_size=4, depth=4
        ),
        classifier=nn.Linear(192, 10),
        supervised_loss=nn.CrossEntropyLoss(),
        optim={"optimizer": {"type": "AdamW", "lr": 1e-3}},
    )
    cache = spt.callbacks.EmbeddingCache(BLOCKS)
    sweep = spt.callbacks.OnlineProbeSweep(
        input=BLOCKS, num_outputs=10, rates=(1e-3, 1e-2, 1e-1), log_all=True
    )
    trainer = pl.Trainer(
        max_steps=max_steps, logger=False, enable_checkpointing=False, log_every_n_steps=1,
        callbacks=[cache, sweep],
    )  # fmt: skip
    trainer.fit(module, data)
    trainer.validate(module, data)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-steps", type=int, default=230)
    print(main(parser.parse_args().max_steps))
