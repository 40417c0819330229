"""Imbalanced data: a long tail of classes, balanced or not, judged by class.

    python examples/imbalanced.py [--max-steps N] [--balanced]

Class c keeps a share 100^(-c/9) of its images. ``--balanced`` draws images of every class
equally often.
"""

from __future__ import annotations

import argparse

import lightning as pl
import stable_pretraining as spt
import torch
import torchmetrics
from stable_pretraining.data import transforms
from torch import nn
from torch.utils.data import DataLoader, WeightedRandomSampler


def long_tail(labels: torch.Tensor, factor: float = 100.0) -> list[int]:
    """Indices that keep all images of class 0 and one of ``factor`` of class 9."""
    kept = []
    for label in range(10):
        rows = (labels == label).nonzero().flatten().tolist()
        kept += rows[: max(1, round(len(rows) * factor ** (-label / 9)))]
    return sorted(kept)


def main(max_steps: int, balanced: bool = False) -> dict[str, float]:
    """Train, and return the last metrics."""
    pl.seed_everything(0)
    to_image = transforms.ToImage()
    whole = spt.data.sample_dataset("train", transform=to_image)
    labels = torch.tensor([whole[i]["label"] for i in range(len(whole))])
    kept = long_tail(labels)
    train = spt.data.Subset(whole, kept)
    sampler = None
    if balanced:
        counts = labels[kept].bincount()
        sampler = WeightedRandomSampler(1 / counts[labels[kept]], len(kept))
    loader = DataLoader(
        train, batch_size=120, sampler=sampler, shuffle=sampler is None, drop_last=True
    )
    test = spt.data.sample_dataset("test", transform=to_image)
    data = spt.data.DataModule(train=loader, val=DataLoader(test, batch_size=250))
    module = spt.Module(
        forward=spt.forward.supervised,
        backbone=spt.backbone.from_timm("resnet10t", num_classes=0, in_chans=1),
        classifier=nn.Linear(512, 10),
        supervised_loss=nn.CrossEntropyLoss(),
        optim={"optimizer": {"type": "AdamW", "lr": 1e-3}},
    )
    probe = spt.callbacks.OnlineProbe(
        probe=nn.Linear(512, 10),
        loss=nn.CrossEntropyLoss(),
        metrics={
            "accuracy": torchmetrics.classification.MulticlassAccuracy(10, average="micro"),
            "mean_of_classes": torchmetrics.classification.MulticlassAccuracy(10, average="macro"),
        },
    )
    trainer = pl.Trainer(
        max_steps=max_steps, logger=False, enable_checkpointing=False, log_every_n_steps=1,
        callbacks=[probe],
    )  # fmt: skip
    trainer.fit(module, data)
    trainer.validate(module, data)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-steps", type=int, default=200)
    parser.add_argument("--balanced", action="store_true")
    given = parser.parse_args()
    print(main(given.max_steps, given.balanced))
