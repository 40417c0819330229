"""Supervised training on the bundled images, with the accuracy on held-out images.

python examples/supervised.py [--max-steps N]
"""

from __future__ import annotations

import argparse

import lightning as pl
import stable_pretraining as spt
from stable_pretraining.data import gpu_transforms as gt
from stable_pretraining.data import transforms
from torch import nn
from torch.utils.data import DataLoader


def main(max_steps: int) -> dict[str, float]:
    """Train, and return the last metrics."""
    pl.seed_everything(0)
    crops = gt.GPUCompose(
        [gt.GPURandomResizedCrop(28, scale=(0.5, 1)), gt.GPURandomHorizontalFlip()]
    )
    to_image = transforms.ToImage()
    train = spt.data.sample_dataset("train", transform=to_image, gpu_transform=crops)
    test = spt.data.sample_dataset("test", transform=to_image)
    data = spt.data.DataModule(
        train=DataLoader(train, batch_size=128, shuffle=True, drop_last=True),
        val=DataLoader(test, batch_size=250),
    )
    module = spt.Module(
        forward=spt.forward.supervised,
        backbone=spt.backbone.from_timm("resnet10t", num_classes=0, in_chans=1),
        classifier=nn.Linear(512, 10),
        supervised_loss=nn.CrossEntropyLoss(label_smoothing=0.1),
        optim={
            "optimizer": {"type": "AdamW", "lr": 1e-3, "weight_decay": 0.05},
            "scheduler": "LinearWarmupCosineAnnealing",
        },
    )
    probe = spt.callbacks.OnlineProbe(probe=nn.Linear(512, 10), loss=nn.CrossEntropyLoss())
    trainer = pl.Trainer(
        max_steps=max_steps, logger=False, enable_checkpointing=False, log_every_n_steps=1,
        callbacks=[probe],
    )  # fmt: skip
    trainer.fit(module, data)
    trainer.validate(module, data)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-steps", type=int, default=230)
    print(main(parser.parse_args().max_steps))
