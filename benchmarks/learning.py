"""What each method learns from Fashion-MNIST on a fixed, small budget of images seen.

A small network is pretrained by each method and frozen; then the accuracy of a k-nearest-neighbour vote and
of a linear classifier on its features is printed, beside those of the same network before training (of the
same seed, read in the same way), of raw pixels, and of a network trained with labels on the same budget. All
methods share batch size, optimizer (AdamW, warm-up and cosine), augmentation and budget, and one of two
encoders, a ResNet or a vision transformer; what differs is the method.

The images are those of Debian's package ``dataset-fashion-mnist``.

    python benchmarks/learning.py [METHOD ...] [--images=N] [--seeds=1] [--first-seed=0] [--quick]
        [--threads=1] [--out=FILE]
    python benchmarks/learning.py --table=FILE

Without ``--images`` a method sees 200,000 images on a processor and ten times as many on an accelerator,
which is minutes on either. With ``--out`` each row is also added to a file, from which ``--table`` prints
the page of the docs.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _fashion_mnist import BATCH, FRAMES, LABELLED, load, normalized
from _small_methods import METHODS, RESNETS, build, fit
from loguru import logger
from sklearn.linear_model import LogisticRegression
from spt_callbacks import knn_vote
from torch import Tensor

BUDGETS = {"cpu": 200_000, "accelerator": 2_000_000}


def budget() -> int:
    """Images to see: minutes per method, on a processor and on an accelerator."""
    return BUDGETS["accelerator" if torch.accelerator.is_available() else "cpu"]


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
    votes = knn_vote(bank, y, queries, num_classes=10).argmax(1)
    classifier = LogisticRegression(C=0.01, max_iter=300).fit(bank.numpy(), y.numpy())
    linear = classifier.score(queries.numpy(), y_test.numpy())
    return 100 * (votes == y_test).float().mean().item(), 100 * linear


def run(name: str, data: dict[str, Any], images: int, seed: int) -> dict[str, Any]:
    """One row of the table."""
    row: dict[str, Any] = {"name": name, "seed": seed, "images": images}
    module, kind, steps = None, "one image", images // BATCH
    if name != "raw pixels":
        torch.manual_seed(seed)
        module, kind = build(name, 0, seed, data["pretrain"])
        settle(module, data, kind)
        row["untrained_knn"], row["untrained_linear"] = accuracies(module, data, kind)
        row["encoder"] = "ResNet" if name in {*RESNETS, "supervised"} else "transformer"
        start = time.process_time()
        torch.manual_seed(seed)
        module, kind = build(name, steps, seed, data["pretrain"])
        fit(module, kind, steps, seed, data["pretrain"])
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
    images = int(options.get("images", 1280 if "quick" in options else budget()))
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
