"""Cost of the live evaluation: per training step, per queue append, per kNN query, per RankMe.

Peers run beside ours, in turns; medians are printed.

    python benchmarks/callbacks.py [--quick] [--threads=N] [--only=step|append|knn|rankme]
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import lightning as pl
import numpy as np
import torch
from spt_callbacks import LiDAR, OnlineKNN, OnlineProbe, RankMe, rankme
from spt_callbacks.evaluation._spectrum import entropy_of, moments, singular_values
from spt_callbacks.evaluation.nearest import Bank
from spt_callbacks.ring import Ring
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

WIDTH, CLASSES, LENGTH = 512, 100, 20_000


def medians(contestants: Mapping[str, Callable[[], Any]], turns: int) -> dict[str, float]:
    """Median seconds of each, run in turns after one turn that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(turns + 1):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


def show(title: str, times: Mapping[str, float], base: str) -> None:
    """Print medians in ms, and as multiples of one of them."""
    print(f"\n{title}\n{'':44} {'ms':>9} {'ratio':>7}")
    for name, seconds in times.items():
        print(f"{name:44} {1e3 * seconds:9.3f} {seconds / times[base]:7.2f}")


class Images(Dataset[dict[str, Any]]):
    """Random images; the same ones at every index, so that a loader costs little."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.images = torch.randn(64, 3, 32, 32)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"image": self.images[i % 64], "label": i % CLASSES, "sample_idx": i}


class Small(pl.LightningModule):
    """A small convolutional encoder with a 512-wide embedding; a step sees two views."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 64, 128, 256, WIDTH)
        layers = [
            layer
            for a, b in itertools.pairwise(widths)
            for layer in (nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b), nn.ReLU())
        ]
        self.encoder = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.projector = nn.Linear(WIDTH, 128)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Two views, no labels."""
        embedding = self.encoder(torch.cat([batch["image"], batch["image"].flip(-1)]))
        one, two = self.projector(embedding).chunk(2)
        return {
            "loss": (one - two).square().mean() - embedding.std(0).mean(),
            "embedding": embedding,
            "label": batch["label"].repeat(2),
        }

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """One view."""
        return {"embedding": self.encoder(batch["image"])}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def evaluation() -> list[pl.Callback]:
    """A probe and three readers of queues."""
    return [
        OnlineProbe(probe=nn.Linear(WIDTH, CLASSES), loss=nn.CrossEntropyLoss()),
        OnlineKNN(queue_length=LENGTH),
        RankMe(queue_length=LENGTH),
        LiDAR(queue_length=LENGTH),
    ]


class Clock(pl.Callback):
    """Time from the beginning of each batch to the end of all that callbacks do with it."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def on_train_batch_start(self, *args: Any) -> None:
        """Start."""
        self._start = time.perf_counter()

    def on_train_batch_end(self, *args: Any) -> None:
        """Stop."""
        self.seconds.append(time.perf_counter() - self._start)


def training(callbacks: list[pl.Callback], steps: int, batch: int) -> list[float]:
    """Seconds of each training step; the clock stops last of all callbacks."""
    torch.manual_seed(0)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="auto", devices=1, max_steps=steps, logger=False, callbacks=[*callbacks, clock],
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=folder, num_sanity_val_steps=0,
        )  # fmt: skip
        trainer.fit(Small(), DataLoader(Images(steps * batch), batch))
    return clock.seconds[min(5, steps // 2) :]


def added_per_step(quick: bool) -> None:
    """The same run bare and watched, one after the other, several times."""
    steps, batch, turns = (6, 16, 1) if quick else (20, 128, 5)
    taken: dict[str, list[float]] = {"bare": [], "probe + kNN + RankMe + LiDAR": []}
    for _ in range(turns):
        for name, seconds in taken.items():
            seconds += training([] if name == "bare" else evaluation(), steps, batch)
    times = {name: statistics.median(seconds) for name, seconds in taken.items()}
    title = f"training step, small encoder, 2 x {batch} images, queues {LENGTH} x {WIDTH}"
    show(title, times, "bare")
    bare, watched = times.values()
    print(f"added per step: {1e3 * (watched - bare):.3f} ms ({100 * (watched / bare - 1):.1f} %)")


class SliceCopy:
    """The simplest ring: a batch that divides its length, copied to the next place."""

    def __init__(self, length: int, width: int) -> None:
        self.rows = torch.empty(length, width)
        self.start = 0

    def append(self, x: Tensor) -> None:
        """Copy."""
        self.rows[self.start : self.start + len(x)] = x
        self.start = (self.start + len(x)) % len(self.rows)


def append(quick: bool) -> None:
    """A queue's append beside the bare slice copy, many at a time."""
    turns, repeats = (3, 10) if quick else (60, 100)
    for width in (WIDTH,) if quick else (WIDTH, 2048):
        x = torch.randn(250, width)
        rings = {"bare slice copy": SliceCopy(LENGTH, width), "Ring.append": Ring(LENGTH)}

        def many(ring: Any, x: Tensor = x) -> None:
            for _ in range(repeats):
                ring.append(x)

        runs = {name: (lambda ring=ring: many(ring)) for name, ring in rings.items()}
        times = {name: t / repeats for name, t in medians(runs, turns).items()}
        show(f"append of 250 rows to {LENGTH} x {width}", times, "bare slice copy")


def knn(quick: bool) -> None:
    """The 20 nearest by cosine of queries in a bank, beside exact searches.

    Once with the bank prepared, and once from new features, as each validation has them.
    """
    queries, bank, turns = (200, 5_000, 2) if quick else (2_000, 50_000, 7)
    generator = torch.Generator().manual_seed(0)
    x, q = (torch.randn(n, WIDTH, generator=generator) for n in (bank, queries))
    banks = {size: Bank(x, chunk_size=size) for size in (-1, 2_000)}
    contestants: dict[str, Callable[[], Any]] = {
        f"ours, chunk_size={size}": lambda b=prepared: b.nearest(q, 20)[1]
        for size, prepared in banks.items()
    }
    contestants["ours, from new features"] = lambda: Bank(x).nearest(q, 20)[1]
    unit, unit_q = (nn.functional.normalize(v, dim=1).numpy() for v in (x, q))
    with contextlib.suppress(ImportError):
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())
        index = faiss.IndexFlatIP(WIDTH)
        index.add(unit)
        contestants["faiss-cpu IndexFlatIP"] = lambda: index.search(unit_q, 20)[1]

        def from_new_features() -> Any:
            fresh = faiss.IndexFlatIP(WIDTH)
            fresh.add(nn.functional.normalize(x, dim=1).numpy())
            return fresh.search(nn.functional.normalize(q, dim=1).numpy(), 20)[1]

        contestants["faiss-cpu, from new features"] = from_new_features
    with contextlib.suppress(ImportError):
        from sklearn.neighbors import NearestNeighbors

        brute = NearestNeighbors(n_neighbors=20, algorithm="brute", metric="cosine").fit(unit)
        contestants["scikit-learn brute, cosine"] = lambda: brute.kneighbors(unit_q)[1]
    found = {name: np.sort(np.asarray(run()), axis=1) for name, run in contestants.items()}
    first = next(iter(found.values()))
    for name, other in found.items():
        assert (first == other).mean() > 0.999, name  # rounding may swap the last neighbour
    base = "faiss-cpu IndexFlatIP" if "faiss-cpu IndexFlatIP" in contestants else next(iter(found))
    title = f"20 nearest of {queries} queries in {bank} x {WIDTH}"
    show(title, medians(contestants, turns), base)


def rank(quick: bool) -> None:
    """RankMe of a full queue: the Gram matrix as the callback does, and the full SVD."""
    rows = 2_000 if quick else LENGTH
    z = torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(0))

    def by_gram() -> float:
        count, _, gram = moments(z)
        return entropy_of(singular_values(count, gram), 1e-7).exp().item()

    by_svd, in_float32 = lambda: rankme(z).item(), lambda: torch.linalg.svdvals(z).sum().item()
    assert abs(by_gram() / by_svd() - 1) < 1e-6
    contestants = {
        "RankMe callback (float64 Gram matrix)": by_gram,
        "rankme() (float64 SVD)": by_svd,
        "torch.linalg.svdvals alone, float32": in_float32,
    }
    title = f"RankMe of {rows} x {WIDTH}, once a validation"
    show(title, medians(contestants, 2 if quick else 3), "rankme() (float64 SVD)")


PARTS = {"step": added_per_step, "append": append, "knn": knn, "rankme": rank}


def main(arguments: list[str]) -> None:
    """Run all parts, or those that are asked for."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    threads = [int(a.partition("=")[2]) for a in arguments if a.startswith("--threads=")]
    torch.set_num_threads(*(threads or [torch.get_num_threads()]))
    chosen = [a.partition("=")[2] for a in arguments if a.startswith("--only=")] or list(PARTS)
    print(f"{torch.get_num_threads()} threads, float32")
    for name in chosen:
        PARTS[name]("--quick" in arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
