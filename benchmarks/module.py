"""What a step of ``spt_methods.Module`` costs over a hand-written LightningModule.

The same network, loss, optimizer, schedule and data, once as a plain LightningModule that logs its loss and
its rate, once as a Module with a forward function. Short runs alternate; each pair compares its lower quartiles
of a step (what else the machine does only adds), and the median over the pairs is printed. The network is sized
so that a step takes about 20 ms on two cores; ``--width`` sets it for another machine.

    python benchmarks/module.py [--quick] [--width=N] [--threads=N] [--cpu-time]

``--cpu-time`` counts the processor's time instead of the wall's, for a machine that others use too.
"""

from __future__ import annotations

import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import lightning as pl
import torch
from loguru import logger
from spt_methods import Module
from torch import nn
from torch.utils.data import DataLoader, IterableDataset


class Batches(IterableDataset):  # type: ignore[type-arg]
    """The same batch again and again."""

    def __init__(self, batch: dict[str, Any]) -> None:
        self.batch = batch

    def __iter__(self) -> Any:
        while True:
            yield self.batch


class Clock(pl.Callback):
    """Times from the start of one batch to the start of the next."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.times: list[float] = []
        self.last = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        """Take the time."""
        now = self.now()
        if self.last:
            self.times.append(now - self.last)
        self.last = now


def network(width: int) -> nn.Module:
    """Four wide layers."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(4):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


class Plain(pl.LightningModule):
    """Written by hand."""

    def __init__(self, width: int, steps: int) -> None:
        super().__init__()
        self.net, self.steps = network(width), steps

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        """Cross-entropy, logged; the rate, logged."""
        loss = nn.functional.cross_entropy(self.net(batch["x"]), batch["y"])
        self.log("fit/loss", loss.detach(), on_step=True, on_epoch=True, prog_bar=True)
        self.log("hparams/lr", self.trainer.optimizers[0].param_groups[0]["lr"], on_step=True)
        return loss

    def configure_optimizers(self) -> Any:
        """SGD and a cosine."""
        optimizer = torch.optim.SGD(self.net.parameters(), lr=0.01)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def forward(self: Any, batch: dict[str, Any], stage: str) -> dict[str, Any]:
    """The same, as a forward function."""
    return {"loss": nn.functional.cross_entropy(self.net(batch["x"]), batch["y"])}


def seconds(
    module: pl.LightningModule, batch: dict[str, Any], steps: int, now: Callable[[], float]
) -> list[float]:
    """Times of the steps of a run, but for the first ones."""
    clock = Clock(now)
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=steps, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[clock],
    )  # fmt: skip
    trainer.fit(module, DataLoader(Batches(batch), batch_size=None))
    return clock.times[10:]


def main(arguments: list[str]) -> None:
    """Alternate and print."""
    options = dict(a.lstrip("-").partition("=")[::2] for a in arguments)
    width, quick = int(options.get("width", 640)), "quick" in options
    torch.set_num_threads(int(options.get("threads", torch.get_num_threads())))
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logger.remove()
    batch = {"x": torch.randn(256, width), "y": torch.randint(10, (256,))}
    steps, turns = (40, 6) if quick else (40, 40)
    now = time.process_time if "cpu-time" in options else time.perf_counter
    optim = {"optimizer": {"type": "SGD", "lr": 0.01}, "scheduler": "CosineAnnealingLR"}
    make: dict[str, Callable[[], pl.LightningModule]] = {
        "LightningModule": lambda: Plain(width, steps),
        "spt_methods.Module": lambda: Module(forward=forward, net=network(width), optim=optim),
    }
    steady: dict[str, list[float]] = {name: [] for name in make}
    for turn in range(turns):
        for name in sorted(make, reverse=turn % 2 == 1):  # AB BA: a drift of the machine cancels
            taken = seconds(make[name](), batch, steps, now)
            steady[name].append(statistics.quantiles(taken, n=4)[0])
    base = steady["LightningModule"]
    print(f"{'step of':24} {'ms':>10} {'added, ms':>10} {'added':>7}")
    for name, taken in steady.items():
        added = statistics.median(t - b for t, b in zip(taken, base, strict=True))
        ratio = statistics.median(t / b for t, b in zip(taken, base, strict=True))
        print(
            f"{name:24} {1e3 * statistics.median(taken):10.2f} {1e3 * added:10.2f} {ratio - 1:7.1%}"
        )
    quartiles = statistics.quantiles(
        [t / b - 1 for t, b in zip(steady["spt_methods.Module"], base, strict=True)], n=4
    )
    print(f"quartiles of the {turns} pairs: " + ", ".join(f"{q:.1%}" for q in quartiles))


if __name__ == "__main__":
    main(sys.argv[1:])
