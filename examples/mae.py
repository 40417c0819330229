"""MAE on a small transformer, watched by a linear probe and RankMe; a picture of what it attends to.

python examples/mae.py [--max-steps N]
"""

from __future__ import annotations

import argparse

import lightning as pl
import stable_pretraining as spt
import torch
from stable_pretraining import pictures
from stable_pretraining.data import gpu_transforms as gt
from stable_pretraining.data import transforms
from torch import nn
from torch.utils.data import DataLoader


def main(max_steps: int, picture: str = "attention.png") -> dict[str, float]:
    """Train, and return the last metrics."""
    pl.seed_everything(0)
    crop = gt.GPUCompose(
        [gt.GPURandomResizedCrop(28, scale=(0.5, 1)), gt.GPURandomHorizontalFlip()]
    )
    to_image = transforms.ToImage()
    train = spt.data.sample_dataset("train", transform=to_image, gpu_transform=crop)
    test = spt.data.sample_dataset("test", transform=to_image)
    data = spt.data.DataModule(
        train=DataLoader(train, batch_size=128, shuffle=True, drop_last=True),
        val=DataLoader(test, batch_size=250),
    )
    module = spt.methods.MAE(
        "vit_tiny_patch16_224",
        in_chans=1,
        image_size=28,
        encoder_kwargs={"patch_size": 4, "depth": 4},
        decoder_embed_dim=64,
        decoder_depth=2,
        decoder_num_heads=4,
        optim={
            "optimizer": {"type": "AdamW", "lr": 1e-3, "betas": (0.9, 0.95)},
            "scheduler": "LinearWarmupCosineAnnealing",
        },
    )
    probe = spt.callbacks.OnlineProbe(probe=nn.Linear(192, 10), loss=nn.CrossEntropyLoss())
    rankme = spt.callbacks.RankMe(queue_length=2000)
    trainer = pl.Trainer(
        max_steps=max_steps, logger=False, enable_checkpointing=False, log_every_n_steps=1,
        callbacks=[probe, rankme],
    )  # fmt: skip
    trainer.fit(module, data)
    trainer.validate(module, data)
    images = torch.stack([test[i]["image"] for i in range(4)])
    print(pictures.draw_attention(module.cpu(), images, picture))
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-steps", type=int, default=230)
    print(main(parser.parse_args().max_steps))
