"""CLIP on the bundled images with captions, judged by zero-shot classification.

python examples/clip.py [--max-steps N]
"""

from __future__ import annotations

import argparse

import lightning as pl
import stable_pretraining as spt
from torch.utils.data import DataLoader, Dataset

CLASSES = ["T-shirt", "pair of trousers", "pullover", "dress", "coat",
           "sandal", "shirt", "sneaker", "bag", "ankle boot"]  # fmt: skip
CAPTIONS = ["a photo of a {}", "one {} on a black background", "a {} in a shop's catalogue"]


class Captioned(Dataset):  # type: ignore[type-arg]
    """Each image with a sentence that names what it shows."""

    def __init__(self, images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        """The sample, with its ``text``."""
        sample = self.images[index]
        caption = CAPTIONS[index % len(CAPTIONS)]
        return {**sample, "text": caption.format(CLASSES[sample["label"]])}


def main(max_steps: int) -> dict[str, float]:
    """Train, and return the last metrics."""
    pl.seed_everything(0)
    to_image = spt.data.transforms.ToImage()
    train, test = (spt.data.sample_dataset(s, transform=to_image) for s in ("train", "test"))
    module = spt.methods.CLIP(
        spt.backbone.from_timm("resnet10t", num_classes=0, in_chans=1),
        tokenizer=spt.backbone.BytePairTokenizer(context_length=16),
        embed_dim=64,
        text_width=64,
        text_depth=2,
        text_heads=2,
        optim={
            "optimizer": {"type": "AdamW", "lr": 1e-3},
            "scheduler": "LinearWarmupCosineAnnealing",
        },
    )
    zero_shot = spt.callbacks.CLIPZeroShot(
        "zero_shot",
        image_key="image_features",
        class_key="label",
        class_names=CLASSES,
        image_backbone=None,
        text_backbone="text",
        tokenizer_fn=module.tokenizer,
        templates=["this is a {}.", "an image of the {}"],
    )
    data = spt.data.DataModule(
        train=DataLoader(Captioned(train), batch_size=128, shuffle=True, drop_last=True),
        val=DataLoader(test, batch_size=250),
    )
    trainer = pl.Trainer(
        max_steps=max_steps, logger=False, enable_checkpointing=False, log_every_n_steps=1,
        callbacks=[zero_shot],
    )  # fmt: skip
    trainer.fit(module, data)
    trainer.validate(module, data)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-steps", type=int, default=180)
    print(main(parser.parse_args().max_steps))
