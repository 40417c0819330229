"""What each method learns from Fashion-MNIST on a fixed, small budget of images seen.

A small network is pretrained by each method and frozen; then the accuracy of a k-nearest-neighbour vote and
of a linear classifier on its features is printed, beside those of the same network before training (of the
same seed, read in the same way), of raw pixels, and of a network trained with labels on the same budget. All
methods share batch size, optimizer (AdamW, warm-up and cosine), augmentation and budget, and one of two
encoders, a ResNet or a vision transformer; what differs is the method.

The images are those of Debian's package ``dataset-fashion-mnist``.

    python benchmarks/learning.py [METHOD ...] [--images=200000] [--seeds=1] [--first-seed=0] [--quick]
        [--threads=1] [--out=FILE]
    python benchmarks/learning.py --table=FILE

With ``--out`` each row is also added to a file, from which ``--table`` prints the page of the docs.
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
from spt_methods.masking import MultiBlockMasking
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

FOLDERS = ("/usr/share/dataset-fashion-mnist", "/usr/share/datasets/fashion-mnist")
BATCH, SIDE, SMALL_SIDE, FRAMES = 128, 32, 16, 4
MEAN, STD = 0.219, 0.332  # of the padded images
LABELLED, TESTED, PRETRAINED = 5000, 5000, 20000
LR, BUDGET = 1e-3, 200_000


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
    """Images in [0, 1], ``(N, 1, 32, 32)``, and labels: to pretrain, to fit the probes, to test."""
    parts = {}
    for part in ("train", "t10k"):
        images = torch.tensor(read(f"{part}-images")).float().div(255).unsqueeze(1)
        images = F.pad(images, (2,) * 4)  # to a power of two
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
    scale: tuple[float, float] = (0.4, 1),
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
        "image": normalized(out),
        "RandomResizedCrop": torch.stack([top, left, height, width], dim=1),
        "RandomHorizontalFlip": u[4] < 0.5,
    }


def normalized(images: Tensor) -> Tensor:
    """Of mean 0 and deviation 1 over the data set."""
    return (images - MEAN) / STD


def recoloured(seen: dict[str, Any], generator: torch.Generator) -> dict[str, Any]:
    """The same crops with other brightness and contrast."""
    images = seen["image"]
    scale, shift = torch.rand(2, len(images), 1, 1, 1, generator=generator)
    return {**seen, "image": images * (0.6 + 0.8 * scale) + 0.4 * (shift - 0.5)}


def video_of(images: Tensor, generator: torch.Generator) -> Tensor:
    """Frames ``(N, T, 1, 32, 32)`` of a camera that moves over each image at a steady speed."""
    margin = 6
    large = F.pad(images, (margin,) * 4)
    ends = torch.randint(2 * margin + 1, (2, 2, len(images)), generator=generator).float()
    row = torch.arange(len(images)).view(-1, 1, 1)
    frames = []
    for t in torch.linspace(0, 1, FRAMES):
        top, left = (ends[0] + t * (ends[1] - ends[0])).round().long()
        rows = (top.view(-1, 1) + torch.arange(SIDE)).unsqueeze(2)
        columns = (left.view(-1, 1) + torch.arange(SIDE)).unsqueeze(1)
        frames.append(large[row, 0, rows, columns])
    return torch.stack(frames, 1).unsqueeze(2)


VIEWS = {"one image": 1, "one crop, two colours": 1, "two views": 2, "multi-crop": 2}


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
            if self.kind == "one video":
                yield {"video": normalized(video_of(images, generator)), "label": labels}
                continue
            large = [view(images, generator) for _ in range(VIEWS[self.kind])]
            if self.kind == "multi-crop":
                small = [view(images, generator, SMALL_SIDE, (0.15, 0.4)) for _ in range(2)]
                named = {f"global_{i}": v for i, v in enumerate(large)}
                yield {**named, **{f"local_{i}": v for i, v in enumerate(small)}}
            elif self.kind == "one image":
                yield {**large[0], "label": labels, "sample_idx": index}
            elif self.kind == "one crop, two colours":
                yield {"views": [large[0], recoloured(large[0], generator)], "label": labels}
            else:
                yield {"views": large, "label": labels}


def resnet() -> nn.Module:
    """A ResNet-10 of 16 to 128 channels; its stem halves the image twice, as the large ones do."""
    net = ResNet(
        BasicBlock, (1, 1, 1, 1), in_chans=1, num_classes=0, channels=(16, 32, 64, 128),
        output_stride=16,  # 2 x 2 places at the end, which VICRegL matches
        zero_init_last=False,  # residual branches that start at zero make an unfair untrained network
    )  # fmt: skip
    net.conv1 = nn.Conv2d(1, 64, 3, 2, 1, bias=False)
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


SIZES: dict[str, Any] = {
    "patch_size": 8,
    "in_chans": 1,
    "depth": 4,
    "embed_dim": 64,
    "num_heads": 2,
}
PATCHES_ALONE = {"class_token": False, "global_pool": "avg", "fc_norm": False}


def transformer(**settings: Any) -> nn.Module:
    """Four blocks of width 64 on patches of 8 pixels."""
    return backbones.from_timm(
        "vit_tiny_patch16_224", img_size=SIDE, num_classes=0, dynamic_img_size=True, **SIZES,
        **settings,
    )  # fmt: skip


def video_transformer() -> nn.Module:
    """The same over tubelets of two frames."""
    return backbones.VideoViT(
        "vit_tiny_patch16_224", num_frames=FRAMES, tubelet_size=2, image_size=SIDE, **SIZES
    )


HEAD = {"n_prototypes": 512, "projector_hidden_dim": 256, "projector_bottleneck_dim": 64,
        "warmup_epochs_temperature_teacher": 0, "freeze_last_layer_epochs": 0,
        "drop_path_rate": 0.0}  # fmt: skip
EMA = {"ema_decay_start": 0.98}
SLOW_EMA = {"ema_decay_start": 0.996}  # a teacher of features that follows fast forgets the image
DECODER = {"decoder_embed_dim": 64, "decoder_depth": 2, "decoder_num_heads": 4}
PREDICTOR = {"predictor_embed_dim": 64, "predictor_depth": 2}
MASKED_HEAD = {k: v for k, v in HEAD.items() if k != "n_prototypes"}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "CMAE": ("one crop, two colours", {"pixel_shift": 0, "feature_decoder_depth": 1,
                                       "projector_hidden_dim": 256, "projector_dim": 64, **DECODER,
                                       "ema_decay_start": 0.98, "ema_decay_end": 0.999}),
    "CrossMAE": ("one image", DECODER),
    "DeiT": ("one image", {"num_classes": 10}),
    "DINOv3": ("multi-crop", {**HEAD, "ema_decay_start": 0.98, "ema_decay_end": 0.999,
                              "gram_start_step": None}),
    "iGPT": ("one image", {"head_dim": 128, "head_depth": 2, "feature_layers": 2}),
    "MIMRefiner": ("multi-crop", {"num_heads": 2, "projector_dims": (256, 256, 64),
                                  "predictor_hidden_dim": 256, "queue_length": 2048}),
    "NEPA": ("one image", {}),
    "SALT": ("one image", PREDICTOR),  # its teacher: see `build`
    "VJEPA": ("one video", {**PREDICTOR, **SLOW_EMA}),
    "BEiT": ("one image", {"vocab_size": 512, "drop_path_rate": 0.0}),  # the tokenizer: see `build`
    "Data2Vec": ("one image", {"top_k_blocks": 3, "drop_path_rate": 0.0, "ema_decay_start": 0.98,
                               "ema_decay_end": 0.999}),
    "iBOT": ("multi-crop", {"n_cls_prototypes": 512, **MASKED_HEAD, **EMA}),
    "IJEPA": ("one image", {**PREDICTOR, "min_keep": 2, **SLOW_EMA}),
    "MAE": ("one image", DECODER),
    "MaskFeat": ("one image", {"hog_cell": 8}),
    "MSN": ("multi-crop", {"n_prototypes": 128, "projector_hidden_dim": 256, "projector_dim": 64, **EMA}),
    "SimMIM": ("one image", {"mask_size": 8}),
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
    # hardly more than the official 0, which makes a singular covariance an error: with the default
    # a head that shrinks is no longer whitened, and dimensions are lost
    "WMSE": ("two views", {"projector_dims": (512, 64), "w_size": 128, "eps": 1e-6}),
}  # fmt: skip
RESNETS = {
    "BarlowTwins", "BYOL", "DINO", "LeJEPA", "MoCov2", "MoCov3", "NNCLR", "PIRL", "SimCLR", "SimSiam",
    "SwAV", "TiCO", "VICReg", "VICRegL", "WMSE",
}  # fmt: skip
POOLED = {
    "BEiT",
    "CMAE",
    "CrossMAE",
    "Data2Vec",
    "IJEPA",
    "iGPT",
    "MAE",
    "MaskFeat",
    "SALT",
    "SimMIM",
}
WITHOUT_CLASS_TOKEN = {"IJEPA", "iGPT", "SALT"}


def encoder_of(name: str) -> nn.Module:
    """The ResNet, or the transformer with what the method asks of it."""
    if name in RESNETS:
        return resnet()
    if name == "VJEPA":
        return video_transformer()
    if name in WITHOUT_CLASS_TOKEN:
        return transformer(**PATCHES_ALONE)
    return transformer(**({"global_pool": "avg", "fc_norm": False} if name in POOLED else {}))


def optim_of(steps: int) -> dict[str, Any]:
    """AdamW with a warm-up and a cosine."""
    return {
        "optimizer": {"type": "AdamW", "lr": LR, "weight_decay": 1e-4},
        "scheduler": {"type": "LinearWarmupCosineAnnealing", "peak_step": 0.1},
        "gradient_clip_val": 3.0,
    }


def tokenizer_of(vocab_size: int, steps: int, seed: int) -> pl.LightningModule:
    """A VQ tokenizer trained on the same images for as many steps."""
    tokenizer = methods.VQTokenizer(
        vocab_size, patch_size=8, in_chans=1, hidden_dim=32, codebook_dim=16, optim=optim_of(steps)
    )
    return fit(tokenizer, "one image", steps, seed)


def build(name: str, steps: int, seed: int) -> tuple[pl.LightningModule, str]:
    """A method on its encoder, and what it reads; with 0 steps nothing that it builds on is trained."""
    if name == "supervised":
        return (
            Module(
                forward=forward.supervised, backbone=resnet(), classifier=nn.Linear(128, 10),
                supervised_loss=nn.CrossEntropyLoss(), optim=optim_of(steps),
            ),
            "one image",
        )  # fmt: skip
    kind, settings = METHODS[name]
    encoder = encoder_of(name)
    if name == "BEiT":
        settings = {**settings, "tokenizer": tokenizer_of(settings["vocab_size"], steps, seed)}
    elif name == "SALT":  # the paper's first stage: pixels, under the masks of the second
        masks = methods.MAE(
            transformer(**PATCHES_ALONE),
            masking=MultiBlockMasking(),
            optim=optim_of(steps),
            **DECODER,
        )
        settings = {**settings, "teacher": fit(masks, "one image", steps, seed).backbone}
    elif name == "MIMRefiner":  # what it refines
        mae = methods.MAE(encoder, optim=optim_of(steps), **DECODER)
        encoder = fit(mae, "one image", steps, seed).backbone.vit
    return getattr(methods, name)(encoder, optim=optim_of(steps), **settings), kind


def fit(module: Any, kind: str, steps: int, seed: int) -> Any:
    """The module, trained for so many steps in silence."""
    if not steps:
        return module
    loader = DataLoader(Stream(*load()["pretrain"], kind, seed), batch_size=None)
    trainer = pl.Trainer(
        accelerator="auto", devices=1, max_steps=steps, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader)
    return module


@torch.no_grad()
def features(module: Callable[..., Any] | None, images: Tensor, kind: str) -> Tensor:
    """What the frozen method says of images, standardised later; raw pixels for ``None``.

    A method of videos sees an image as a video that stands still.
    """
    if module is None:
        return images.flatten(1)
    return torch.cat([read_by(module, chunk, kind)["embedding"] for chunk in images.split(500)])


def read_by(module: Callable[..., Any], images: Tensor, kind: str) -> dict[str, Any]:
    """The method's outputs for whole images."""
    images = normalized(images)
    if kind == "one video":
        return module({"video": images.unsqueeze(1).repeat(1, FRAMES, 1, 1, 1)}, "predict")
    return module({"image": images}, "predict")


def accuracies(module: Any, data: dict[str, Any], kind: str) -> tuple[float, float]:
    """Per cent of test images that 20 neighbours, and a linear classifier, name rightly."""
    if module is not None:
        module.eval()
    (x, y), (x_test, y_test) = data["probe"], data["test"]
    bank, queries = features(module, x, kind), features(module, x_test, kind)
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
    row: dict[str, Any] = {"name": name, "seed": seed, "images": images}
    module, kind, steps = None, "one image", images // BATCH
    if name != "raw pixels":
        torch.manual_seed(seed)
        module, kind = build(name, 0, seed)
        settle(module, data, kind)
        row["untrained_knn"], row["untrained_linear"] = accuracies(module, data, kind)
        row["encoder"] = "ResNet" if name in {*RESNETS, "supervised"} else "transformer"
        start = time.process_time()
        torch.manual_seed(seed)
        module = fit(*build(name, steps, seed), steps, seed)
        row["seconds"] = time.process_time() - start
    row["knn"], row["linear"] = accuracies(module, data, kind)
    return row


@torch.no_grad()
def settle(module: Any, data: dict[str, Any], kind: str) -> None:
    """Let the BatchNorm of an untrained network see images, so that it is judged fairly."""
    module.train()
    for chunk in data["pretrain"][0][:2560].split(BATCH):
        read_by(module, chunk, kind)


BASELINES = ["raw pixels", "supervised"]


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: means over seeds, beside the same network before training."""
    lines = [
        "| method | encoder | kNN | untrained | linear | untrained | seeds | CPU-seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    grouped: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(row["name"], []).append(row)
    order = [name for name in [*BASELINES, *sorted(METHODS, key=str.lower)] if name in grouped]
    for name in order:
        group = grouped[name]
        cells = [
            mean_of(group, key)
            for key in ("knn", "untrained_knn", "linear", "untrained_linear", "seconds")
        ]
        lines.append(
            f"| {name} | {group[0].get('encoder', '')} | {' | '.join(cells[:4])} | {len(group)} | "
            f"{cells[4].partition('.')[0]} |"
        )
    return "\n".join(lines)


def cell(group: list[dict[str, Any]]) -> str:
    """What a method has learned, as the table of methods says it."""
    knn, bare_knn, linear, bare_linear = (
        mean_of(group, key) for key in ("knn", "untrained_knn", "linear", "untrained_linear")
    )
    return f"kNN {knn} ({bare_knn}), linear {linear} ({bare_linear})"


def mean_of(group: list[dict[str, Any]], key: str) -> str:
    """Over seeds; nothing where the rows lack it."""
    return f"{statistics.mean(row[key] for row in group):.1f}" if key in group[0] else ""


def main(arguments: list[str]) -> None:
    """Run the named methods, or all, and print the table."""
    options = dict(a.lstrip("-").partition("=")[::2] for a in arguments if a.startswith("--"))
    if "table" in options:
        rows = [json.loads(line) for line in Path(options["table"]).read_text().splitlines()]
        print(table(rows))
        return
    names = [a for a in arguments if not a.startswith("--")] or [*BASELINES, *METHODS]
    unknown = sorted(set(names) - {*BASELINES, *METHODS})
    if unknown:
        raise SystemExit(f"Unknown methods {unknown}; there are {[*BASELINES, *METHODS]}.")
    images = int(options.get("images", 1280 if "quick" in options else BUDGET))
    torch.set_num_threads(int(options.get("threads", 1)))
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logger.remove()
    data, rows = load(), []
    first = int(options.get("first-seed", 0))
    for name in names:
        for seed in range(first, first + int(options.get("seeds", 1))):
            rows.append(run(name, data, images, seed))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
            if "out" in options:
                with Path(options["out"]).open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    print(f"Fashion-MNIST, {images} images seen, {LABELLED} labelled for the probes\n")
    print(table(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
