"""What CLIP and SigLIP learn from a small set of images with captions: zero-shot accuracy.

The set is made from spt-data's bundled images (Fashion-MNIST): each is paired, anew in each batch, with a
caption that says its class's name in one of several sentences. The classes are then named by sentences
that training never saw. Chance is 10 %.

    python benchmarks/image_text.py [CLIP] [SigLIP] [--images=24000] [--seeds=1] [--quick]
"""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

import lightning as pl
import torch
from loguru import logger
from spt_callbacks import CLIPZeroShot
from spt_data import sample_dataset
from spt_methods import methods
from spt_methods.backbones import BytePairTokenizer
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from torchvision.transforms.v2.functional import pil_to_tensor

CLASSES = (
    "T-shirt", "pair of trousers", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
CAPTIONS = (
    "a photo of a {}", "a small grey picture of a {}", "one {} on a black background",
    "{}, seen from the side", "a {} in a shop's catalogue", "somebody sells this {}",
)  # fmt: skip
PROMPTS = ("this is a {}.", "an image of the {}", "my {}")
BATCH = 128


class CaptionedImages(IterableDataset):  # type: ignore[type-arg]
    """Endless batches of images and captions.

    Args:
        images: Shape ``(N, 1, 28, 28)``, in [0, 1].
        labels: Shape ``(N,)``.
        seed: Of the draws.
    """

    def __init__(self, images: Tensor, labels: Tensor, seed: int) -> None:
        self.images, self.labels, self.seed = images, labels, seed

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Batches with ``image``, ``text`` and ``label``."""
        generator = torch.Generator().manual_seed(self.seed)
        while True:
            index = torch.randint(len(self.images), (BATCH,), generator=generator)
            sentence = torch.randint(len(CAPTIONS), (BATCH,), generator=generator).tolist()
            labels = self.labels[index]
            texts = [
                CAPTIONS[s].format(CLASSES[label])
                for s, label in zip(sentence, labels.tolist(), strict=True)
            ]
            yield {"image": self.images[index], "text": texts, "label": labels}


def load(split: Any) -> tuple[Tensor, Tensor]:
    """Images in [0, 1], ``(N, 1, 28, 28)``, and labels."""
    rows = [*sample_dataset(split)]
    images = torch.stack([pil_to_tensor(row["image"]) for row in rows])
    return images.float() / 255, torch.tensor([row["label"] for row in rows])


def encoder() -> nn.Module:
    """A ResNet-10 of 16 to 128 channels."""
    net = ResNet(BasicBlock, (1, 1, 1, 1), in_chans=1, num_classes=0, channels=(16, 32, 64, 128))
    net.conv1 = nn.Conv2d(1, 64, 3, 2, 1, bias=False)
    net.maxpool = nn.Identity()
    return net


def build(name: str) -> pl.LightningModule:
    """The method, small."""
    settings = {"embed_dim": 64} if name == "CLIP" else {}
    return getattr(methods, name)(
        encoder(),
        tokenizer=BytePairTokenizer(context_length=16),
        text_width=64,
        text_depth=2,
        text_heads=2,
        optim={
            "optimizer": {"type": "AdamW", "lr": 2e-3, "weight_decay": 0.01},
            "scheduler": {"type": "LinearWarmupCosineAnnealing", "peak_step": 0.1},
            "gradient_clip_val": 1.0,
        },
        **settings,
    )


def accuracies(name: str, images: int, seed: int = 0) -> tuple[float, float]:
    """Zero-shot accuracy in per cent on the bundled test images, before and after training."""
    torch.manual_seed(seed)
    module: Any = build(name)
    zero_shot = CLIPZeroShot(
        "zero_shot", "image_features", "label", CLASSES, None, "text", module.tokenizer,
        templates=PROMPTS,
    )  # fmt: skip
    trainer = pl.Trainer(
        accelerator="auto", devices=1, max_steps=images // BATCH, logger=False, callbacks=[zero_shot],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    test, labels = load("test")
    rows = [{"image": x, "label": y} for x, y in zip(test, labels, strict=True)]
    tested = DataLoader(rows, batch_size=500)
    before = trainer.validate(module, tested, verbose=False)[0]["eval/zero_shot_acc"]
    trainer.fit(module, DataLoader(CaptionedImages(*load("train"), seed), batch_size=None))
    after = trainer.validate(module, tested, verbose=False)[0]["eval/zero_shot_acc"]
    return 100 * before, 100 * after


def main(arguments: list[str]) -> None:
    """Train the named methods, or both, and print the table."""
    options = dict(a.lstrip("-").partition("=")[::2] for a in arguments if a.startswith("--"))
    names = [a for a in arguments if not a.startswith("--")] or ["CLIP", "SigLIP"]
    images = int(options.get("images", 2560 if "quick" in options else 24000))
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logger.remove()
    print(f"zero-shot accuracy (%) after {images} images with captions; chance is 10\n")
    print("| method | seed | untrained | trained | s |\n|---|---|---|---|---|")
    for name in names:
        for seed in range(int(options.get("seeds", 1))):
            start = time.perf_counter()
            before, after = accuracies(name, images, seed)
            seconds = time.perf_counter() - start
            print(f"| {name} | {seed} | {before:.1f} | {after:.1f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
