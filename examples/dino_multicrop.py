"""DINO: multi-crop made from the whole batch on the device, a GPU if there is one.

python examples/dino_multicrop.py [--max-steps N]
"""

from __future__ import annotations

import argparse

import lightning as pl
import stable_pretraining as spt
from stable_pretraining.data import gpu_transforms as gt
from stable_pretraining.data import transforms
from torch.utils.data import DataLoader


def crops(size: int, scale: tuple[float, float]) -> gt.GPUCompose:
    """One view of each image."""
    return gt.GPUCompose(
        [
            gt.GPURandomResizedCrop(size, scale=scale),
            gt.GPURandomHorizontalFlip(),
            gt.GPUColorJitter(0.4, 0.4, p=0.8),
        ]
    )


def main(max_steps: int) -> dict[str, float]:
    """Train, and return the last metrics."""
    pl.seed_everything(0)
    large, small = crops(28, (0.4, 1.0)), crops(16, (0.1, 0.4))
    multi_crop = gt.MultiView(
        {"global_1": large, "global_2": large, **{f"local_{i}": small for i in range(4)}}
    )
    to_image = transforms.ToImage()
    train = spt.data.sample_dataset("train", transform=to_image, gpu_transform=multi_crop)
    test = spt.data.sample_dataset("test", transform=to_image)
    data = spt.data.DataModule(
        train=DataLoader(train, batch_size=128, shuffle=True, drop_last=True),
        val=DataLoader(test, batch_size=250),
    )
    module = spt.methods.DINO(
        "vit_tiny_patch16_224",
        in_chans=1,
        image_size=28,
        encoder_kwargs={"patch_size": 4, "depth": 4},
        n_prototypes=512,
        projector_hidden_dim=256,
        projector_bottleneck_dim=64,
        warmup_epochs_temperature_teacher=0,
        optim={
            "optimizer": {"type": "AdamW", "lr": 1e-3},
            "scheduler": "LinearWarmupCosineAnnealing",
            "gradient_clip_val": 3.0,
        },
    )
    knn = spt.callbacks.OnlineKNN(queue_length=4000, k=20)
    trainer = pl.Trainer(
        max_steps=max_steps, logger=False, enable_checkpointing=False, log_every_n_steps=1,
        callbacks=[knn],
    )  # fmt: skip
    trainer.fit(module, data)
    trainer.validate(module, data)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-steps", type=int, default=230)
    print(main(parser.parse_args().max_steps))
