"""What each method learns from Fashion-MNIST on a fixed, small budget of images seen.

A small network is pretrained by each method and frozen; then the accuracy of a k-nearest-neighbour vote and
of a linear classifier on its features is printed, beside those of the untrained network, of raw pixels,
and of a network trained with labels on the same budget. All methods share encoder, batch size, optimizer
(AdamW, warm-up and cosine), augmentation and budget; what differs is the method. The transformer of the
token methods has its own untrained row.

The images are those of Debian's package ``dataset-fashion-mnist``.

    python benchmarks/learning.py [METHOD ...] [--images=60000] [--seeds=1] [--quick] [--out=FILE]
"""

from __future__ import annotations

import gzip
import json
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as pl
import numpy as np
import torch
from loguru import logger
from sklearn.linear_model import LogisticRegression
from spt_methods import Module, backbones, forward, methods
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

FOLDERS = ("/usr/share/dataset-fashion-mnist", "/usr/share/datasets/fashion-mnist")
BATCH, SIDE, SMALL_SIDE = 128, 28, 20
LABELLED, TESTED, PRETRAINED = 5000, 5000, 20000
LR = 2e-3


def read(name: str, folders: tuple[str, ...] = FOLDERS) -> np.ndarray:
    """An IDX file of the package."""
    for folder in folders:
        for path in sorted(Path(folder).rglob(f"{name}*")):
            raw = path.read_bytes()
            raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
            dims = raw[3]
            shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(dims)]
            return np.frombuffer(raw, np.uint8, offset=4 + 4 * dims).reshape(shape)
    raise SystemExit(f"{name} is in none of {folders}: apt-get install dataset-fashion-mnist")


def load() -> dict[str, tuple[Tensor, Tensor]]:
    """Images in [0, 1], ``(N, 1, 28, 28)``, and labels: for pretraining, for probes, for testing."""
    parts = {}
    for part in ("train", "t10k"):
        images = torch.tensor(read(f"{part}-images")).float().div(255).unsqueeze(1)
        parts[part] = (images, torch.tensor(read(f"{part}-labels")).long())
    images, labels = parts["train"]
    return {
        "pretrain": (images[:PRETRAINED], labels[:PRETRAINED]),
        "probe": (images[-LABELLED:], labels[-LABELLED:]),
        "test": tuple(x[:TESTED] for x in parts["t10k"]),  # type: ignore[dict-item]
    }


def view(
    images: Tensor,
    generator: torch.Generator,
    size: int = SIDE,
    scale: tuple[float, float] = (0.3, 1),
) -> dict[str, Any]:
    """A random crop, flip, and change of brightness and contrast of each image, with its box."""
    n = len(images)
    u = torch.rand(6, n, generator=generator)
    side = (scale[0] + u[0] * (scale[1] - scale[0])).sqrt()
    aspect = torch.exp((u[1] - 0.5) * 0.5)
    height, width = (side * aspect).clamp(max=1), (side / aspect).clamp(max=1)
    top, left = u[2] * (1 - height), u[3] * (1 - width)
    flip = torch.where(u[4] < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = width * flip, height
    theta[:, 0, 2], theta[:, 1, 2] = 2 * left + width - 1, 2 * top + height - 1
    grid = F.affine_grid(theta, [n, 1, size, size], align_corners=False)
    out = F.grid_sample(images, grid, align_corners=False)
    contrast, brightness = 0.6 + 0.8 * torch.rand(2, n, 1, 1, 1, generator=generator)
    mean = out.mean((1, 2, 3), keepdim=True)
    out = ((out - mean) * contrast + mean) * brightness
    return {
        "image": out,
        "RandomResizedCrop": torch.stack([top, left, height, width], dim=1),
        "RandomHorizontalFlip": u[4] < 0.5,
    }


class Stream(IterableDataset):  # type: ignore[type-arg]
    """Endless batches of views, drawn from a generator of its own."""

    def __init__(self, images: Tensor, labels: Tensor, kind: str, seed: int) -> None:
        self.images, self.labels, self.kind, self.seed = images, labels, kind, seed

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Batches as the kind of method reads them."""
        generator = torch.Generator().manual_seed(self.seed)
        while True:
            index = torch.randint(len(self.images), (BATCH,), generator=generator)
            images, labels = self.images[index], self.labels[index]
            large = [view(images, generator) for _ in range(1 if self.kind == "one image" else 2)]
            if self.kind == "multi-crop":
                small = [view(images, generator, SMALL_SIDE, (0.1, 0.4)) for _ in range(2)]
                named = {f"global_{i}": v for i, v in enumerate(large)}
                yield {**named, **{f"local_{i}": v for i, v in enumerate(small)}}
            elif self.kind == "one image":
                yield {**large[0], "label": labels, "sample_idx": index}
            else:
                yield {"views": large, "label": labels}


def resnet() -> nn.Module:
    """A ResNet-10 of 32 to 256 channels with a stem for small images."""
    net = ResNet(
        BasicBlock, (1, 1, 1, 1), in_chans=1, num_classes=0, channels=(32, 64, 128, 256),
        zero_init_last=False,  # residual branches that start at zero make an unfair untrained network
    )  # fmt: skip
    net.conv1 = nn.Conv2d(1, 64, 3, 2, 1, bias=False)
    net.maxpool = nn.Identity()
    return net


def transformer() -> nn.Module:
    """Four blocks of width 128 on patches of 4 pixels."""
    return backbones.from_timm(
        "vit_tiny_patch16_224", img_size=SIDE, patch_size=4, in_chans=1, num_classes=0, depth=4,
        embed_dim=128, num_heads=4, dynamic_img_size=True,
    )  # fmt: skip


HEAD = {"n_prototypes": 512, "projector_hidden_dim": 256, "projector_bottleneck_dim": 64,
        "warmup_epochs_temperature_teacher": 0, "freeze_last_layer_epochs": 0,
        "drop_path_rate": 0.0}  # fmt: skip
EMA = {"ema_decay_start": 0.98}
MASKED_HEAD = {k: v for k, v in HEAD.items() if k != "n_prototypes"}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "BEiT": ("one image", {"vocab_size": 512, "drop_path_rate": 0.0}),  # the tokenizer: see `build`
    "Data2Vec": ("one image", {"top_k_blocks": 3, "drop_path_rate": 0.0, "ema_decay_start": 0.98,
                               "ema_decay_end": 0.999}),
    "iBOT": ("multi-crop", {"n_cls_prototypes": 512, **MASKED_HEAD, **EMA}),
    "IJEPA": ("one image", {"predictor_embed_dim": 64, "predictor_depth": 2, "min_keep": 4, **EMA}),
    "MAE": ("one image", {"decoder_embed_dim": 64, "decoder_depth": 2, "decoder_num_heads": 4}),
    "MaskFeat": ("one image", {"hog_cell": 4}),
    "MSN": ("multi-crop", {"n_prototypes": 128, "projector_hidden_dim": 256, "projector_dim": 64, **EMA}),
    "SimMIM": ("one image", {"mask_size": 4}),
    "BarlowTwins": ("two views", {"projector_dims": (512, 512)}),
    "BYOL": ("two views", {"projector_dims": (512, 128), "predictor_dims": (512, 128), **EMA}),
    "DINO": ("multi-crop", {**HEAD, **EMA}),
    "DINOv2": ("multi-crop", {**HEAD, **EMA}),
    "LeJEPA": ("multi-crop", {"projector_dims": (512, 64), "n_slices": 256}),
    "MoCov2": ("two views", {"projector_dims": (256, 64), "queue_length": 2048,
                             "ema_decay_start": 0.98, "ema_decay_end": 0.98}),
    "MoCov3": ("two views", {"projector_dims": (512, 128), "predictor_hidden_dim": 512, **EMA}),
    "NNCLR": ("two views", {"projector_dims": (512, 128), "predictor_hidden_dim": 512,
                            "queue_length": 2048}),
    "PIRL": ("one image", {"num_samples": PRETRAINED, "num_negatives": 2048}),
    "SimCLR": ("two views", {"projector_dims": (512, 128), "temperature": 0.2}),
    "SimSiam": ("two views", {"projector_dim": 512, "predictor_hidden_dim": 128}),
    "SwAV": ("multi-crop", {"projector_dims": (512, 64), "n_prototypes": 100,
                            "freeze_prototypes_steps": 20}),
    "TiCO": ("two views", {"projector_dims": (512, 128), **EMA}),
    "VICReg": ("two views", {"projector_dims": (512, 512)}),
    "VICRegL": ("two views", {"projector_dims": (512, 512), "map_dims": (128, 128),
                              "num_matches": (2, 2)}),
    "WMSE": ("two views", {"projector_dims": (256, 32), "w_size": 128}),
}  # fmt: skip
TOKENS = {
    "BEiT",
    "Data2Vec",
    "DINOv2",
    "iBOT",
    "IJEPA",
    "MAE",
    "MaskFeat",
    "MSN",
    "SimMIM",
}  # methods for a transformer; the others train the ResNet


def optim_of(steps: int) -> dict[str, Any]:
    """AdamW with a warm-up and a cosine."""
    return {
        "optimizer": {"type": "AdamW", "lr": LR, "weight_decay": 1e-4},
        "scheduler": {"type": "LinearWarmupCosineAnnealing", "peak_step": 0.1},
        "gradient_clip_val": 3.0,
    }


def tokenizer_of(vocab_size: int, steps: int) -> pl.LightningModule:
    """A VQ tokenizer trained on the same images for as many steps; see :func:`pretrain`."""
    tokenizer = methods.VQTokenizer(
        vocab_size, patch_size=4, in_chans=1, hidden_dim=32, codebook_dim=16, optim=optim_of(steps)
    )
    fit(tokenizer, DataLoader(Stream(*load()["pretrain"], "one image", 0), batch_size=None), steps)
    return tokenizer


def build(name: str, steps: int) -> tuple[pl.LightningModule, str]:
    """A method on its encoder, and what it reads."""
    if name == "supervised":
        return (
            Module(
                forward=forward.supervised, backbone=resnet(), classifier=nn.Linear(256, 10),
                supervised_loss=nn.CrossEntropyLoss(), optim=optim_of(steps),
            ),
            "one image",
        )  # fmt: skip
    kind, settings = METHODS[name]
    if name == "BEiT":
        settings = {**settings, "tokenizer": tokenizer_of(settings["vocab_size"], steps)}
    encoder = transformer() if name in TOKENS else resnet()
    return getattr(methods, name)(encoder, optim=optim_of(steps), **settings), kind


def pretrain(name: str, data: dict[str, Any], images: int, seed: int) -> pl.LightningModule:
    """The method after its budget."""
    torch.manual_seed(seed)
    steps = images // BATCH
    module, kind = build(name, steps)
    fit(module, DataLoader(Stream(*data["pretrain"], kind, seed), batch_size=None), steps)
    return module


def fit(module: pl.LightningModule, loader: DataLoader[Any], steps: int) -> None:
    """Train for so many steps, in silence."""
    trainer = pl.Trainer(
        accelerator="auto", devices=1, max_steps=steps, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader)


@torch.no_grad()
def features(module: Callable[..., Any] | None, images: Tensor) -> Tensor:
    """What the frozen method says of images, standardised later; raw pixels for ``None``."""
    if module is None:
        return images.flatten(1)
    parts = [module({"image": chunk}, "predict")["embedding"] for chunk in images.split(500)]
    return torch.cat(parts)


def accuracies(module: Any, data: dict[str, Any]) -> tuple[float, float]:
    """Per cent of test images that 20 neighbours, and a linear classifier, name rightly."""
    if module is not None:
        module.eval()
    (x, y), (x_test, y_test) = data["probe"], data["test"]
    bank, queries = features(module, x), features(module, x_test)
    mean, std = bank.mean(0), bank.std(0) + 1e-6
    bank, queries = (bank - mean) / std, (queries - mean) / std
    near = F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T
    top, index = near.topk(20, dim=1)
    votes = knn_vote_of(top, y[index])
    classifier = LogisticRegression(C=0.01, max_iter=300).fit(bank.numpy(), y.numpy())
    linear = classifier.score(queries.numpy(), y_test.numpy())
    return 100 * (votes == y_test).float().mean().item(), 100 * linear


def knn_vote_of(similarity: Tensor, labels: Tensor, temperature: float = 0.07) -> Tensor:
    """The class of largest weighted vote, ``exp(similarity / temperature)``."""
    weights = (similarity / temperature).exp()
    return torch.zeros(len(labels), 10).scatter_add_(1, labels, weights).argmax(1)


def run(name: str, data: dict[str, Any], images: int, seed: int) -> dict[str, Any]:
    """One row of the table."""
    start = time.perf_counter()
    torch.manual_seed(seed)
    module: Any = None
    if name == "untrained ResNet":
        module, _ = build("SimCLR", 1)
    elif name == "untrained transformer":
        module, _ = build("DINOv2", 1)
    elif name != "raw pixels":
        module = pretrain(name, data, images, seed)
    if name.startswith("untrained") and hasattr(module, "train"):
        settle(module, data)
    knn, linear = accuracies(module, data)
    seconds = time.perf_counter() - start
    return {"name": name, "seed": seed, "knn": knn, "linear": linear, "seconds": seconds}


@torch.no_grad()
def settle(module: Any, data: dict[str, Any]) -> None:
    """Let the BatchNorm of an untrained network see images, so that it is judged fairly."""
    module.train()
    for chunk in data["pretrain"][0][:2560].split(BATCH):
        module({"image": chunk}, "predict")


BASELINES = ["raw pixels", "untrained ResNet", "untrained transformer", "supervised"]


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: mean over seeds, and the gain over the untrained network of the same kind."""
    lines = [
        "| method | kNN | linear | linear, gain over untrained | seeds | s |",
        "|---|---|---|---|---|---|",
    ]
    grouped: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(row["name"], []).append(row)
    for name, group in grouped.items():
        knn, linear, seconds = (
            statistics.mean(row[key] for row in group) for key in ("knn", "linear", "seconds")
        )
        base = grouped.get("untrained transformer" if name in TOKENS else "untrained ResNet")
        gain = "" if base is None or name in BASELINES[:3] else (
            f"{linear - statistics.mean(row['linear'] for row in base):+.1f}"
        )  # fmt: skip
        lines.append(
            f"| {name} | {knn:.1f} | {linear:.1f} | {gain} | {len(group)} | {seconds:.0f} |"
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Run the named methods, or all, and print the table."""
    options = dict(a.lstrip("-").partition("=")[::2] for a in arguments if a.startswith("--"))
    names = [a for a in arguments if not a.startswith("--")] or [*BASELINES, *METHODS]
    unknown = sorted(set(names) - {*BASELINES, *METHODS})
    if unknown:
        raise SystemExit(f"Unknown methods {unknown}; there are {[*BASELINES, *METHODS]}.")
    images = int(options.get("images", 1280 if "quick" in options else 60000))
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logger.remove()
    data, rows = load(), []
    for name in names:
        for seed in range(int(options.get("seeds", 1))):
            rows.append(run(name, data, images, seed))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
            if "out" in options:
                with Path(options["out"]).open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    print(f"Fashion-MNIST, {images} images seen, {LABELLED} labelled for the probes\n")
    print(table(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
