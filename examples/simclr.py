"""SimCLR by its class, run by the Manager: a run directory, checkpoints, resume, and the registry.

    python examples/simclr.py [--max-steps N] [--cache-dir DIR]

The same from YAML, here or on SLURM: simclr_cifar10_config.yaml and simclr_cifar10_slurm.yaml.
"""

from __future__ import annotations

import argparse

import lightning as pl
import stable_pretraining as spt
from stable_pretraining.data import gpu_transforms as gt
from stable_pretraining.data import transforms
from torch import nn
from torch.utils.data import DataLoader


def main(max_steps: int, cache_dir: str) -> dict[str, float]:
    """Train, and return the last metrics."""
    two_views = gt.StackedMultiView(
        gt.GPUCompose(
            [
                gt.GPURandomResizedCrop(28, scale=(0.3, 1.0)),
                gt.GPURandomHorizontalFlip(),
                gt.GPUColorJitter(0.4, 0.4, p=0.8),
            ]
        ),
        n_views=2,
    )
    to_image = transforms.ToImage(rgb=True)
    train = spt.data.sample_dataset("train", transform=to_image, gpu_transform=two_views)
    test = spt.data.sample_dataset("test", transform=to_image)
    data = spt.data.DataModule(
        train=DataLoader(train, batch_size=128, shuffle=True, drop_last=True),
        val=DataLoader(test, batch_size=250),
    )
    module = spt.methods.SimCLR(
        "resnet10t",
        projector_dims=(512, 128),
        temperature=0.2,
        optim={
            "optimizer": {"type": "AdamW", "lr": 1e-3},
            "scheduler": "LinearWarmupCosineAnnealing",
        },
    )
    trainer = pl.Trainer(
        max_steps=max_steps,
        log_every_n_steps=1,
        callbacks=[
            spt.callbacks.OnlineProbe(probe=nn.Linear(512, 10), loss=nn.CrossEntropyLoss()),
            spt.callbacks.OnlineKNN(queue_length=5000, k=20),
            spt.callbacks.RankMe(queue_length=2000),
        ],
    )
    with spt.config_context():
        spt.set(cache_dir=cache_dir)
        spt.Manager(trainer=trainer, module=module, data=data, seed=0)()
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-steps", type=int, default=460)
    parser.add_argument("--cache-dir", default="~/runs")
    given = parser.parse_args()
    print(main(given.max_steps, given.cache_dir))
