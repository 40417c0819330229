"""What the Manager costs beside a bare ``trainer.fit``: per step, per checkpoint, and at the start.

All in turns; medians are printed. The bare run has Lightning's CSVLogger, the Manager all its
defaults.

    python benchmarks/manager.py [--quick] [step] [checkpoint] [start]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import lightning as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader

QUICK = "--quick" in sys.argv
REPEATS = 2 if QUICK else 7
STEPS = 30 if QUICK else 150
STEP_S = 0.020
OPTIONS = {
    "accelerator": "cpu",
    "max_epochs": 1,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


class Rows(torch.utils.data.Dataset):
    """Rows that cost nothing."""

    def __len__(self) -> int:
        return STEPS * 4

    def __getitem__(self, i: int) -> torch.Tensor:
        return torch.full((8,), float(i))


class Data(pl.LightningDataModule):
    """Batches of four."""

    def train_dataloader(self) -> DataLoader:
        return DataLoader(Rows(), batch_size=4)


class Model(pl.LightningModule):
    """A small model whose step takes about 20 ms: the rest of them is a sleep."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 1))
        self.began: list[float] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.began.append(time.perf_counter())
        loss = self.body(batch).square().mean()
        self.log("fit/loss", loss)
        time.sleep(max(0.0, STEP_S - (time.perf_counter() - self.began[-1])))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-6)


def bare(folder: str) -> Model:
    model = Model()
    pl.Trainer(**OPTIONS, logger=CSVLogger(folder), default_root_dir=folder).fit(model, Data())
    return model


def managed(folder: str) -> Model:
    from spt_manager import Manager, config_context  # here: a bare start does not pay for it

    with config_context(cache_dir=folder, verbose="ERROR"):
        run = Manager(pl.Trainer(**OPTIONS), Model(), Data(), seed=0)
        run()
    model: Model = run.module
    return model


def step_ms(model: Model) -> float:
    """Mean time from one step to the next, after ten steps to warm up."""
    return 1000 * (model.began[-1] - model.began[10]) / (len(model.began) - 11)


def per_step() -> None:
    found: dict[str, list[float]] = {"bare": [], "managed": []}
    for _ in range(REPEATS):
        for name, run in (("bare", bare), ("managed", managed)):
            with tempfile.TemporaryDirectory() as folder:
                found[name].append(step_ms(run(folder)))
    one, other = (statistics.median(values) for values in found.values())
    print(f"| step of 20 ms | {one:.2f} ms | {other:.2f} ms | {100 * (other / one - 1):+.1f} % |")


def per_checkpoint() -> None:
    from spt_manager.checkpointing import AtomicCheckpointIO

    weights = {f"w{i}": torch.randn(1024, 1024) for i in range(10 if QUICK else 60)}
    megabytes = sum(4 * w.numel() for w in weights.values()) / 1e6
    kinds = {
        "Lightning": TorchCheckpointIO(),
        "ours": AtomicCheckpointIO(),
        "in the background": AtomicCheckpointIO(background=True),
    }
    found: dict[str, list[float]] = {name: [] for name in kinds}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(REPEATS):
            for name, io in kinds.items():
                began = time.perf_counter()
                io.save_checkpoint({"state_dict": weights}, Path(folder) / name / "last.ckpt")
                found[name].append(time.perf_counter() - began)
                if isinstance(io, AtomicCheckpointIO):
                    io.wait()
    theirs, ours, background = (1000 * statistics.median(values) for values in found.values())
    what = f"stall by a checkpoint of {megabytes:.0f} MB"
    print(f"| {what} | {theirs:.0f} ms | {ours:.0f} ms | {ours / theirs:.2f}x |")
    print(
        f"| the same, `background_checkpoint` | {theirs:.0f} ms | {background:.0f} ms | "
        f"{background / theirs:.2f}x |"
    )


def per_start() -> None:
    found: dict[str, list[float]] = {"bare": [], "managed": []}
    for _ in range(min(REPEATS, 5)):  # each is a process of its own
        for name, values in found.items():
            with tempfile.TemporaryDirectory() as folder:
                began = time.time()
                done = subprocess.run(
                    [sys.executable, __file__, f"--start={name}", folder],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                values.append(float(done.stdout.split()[-1]) - began)
    one, other = (statistics.median(values) for values in found.values())
    print(f"| process start to first step | {one:.1f} s | {other:.1f} s | {other / one:.2f}x |")


def first_step(name: str, folder: str) -> None:
    """Run up to the first step in this process, and print when that was."""

    def tell(self: Model, batch: torch.Tensor, batch_idx: int) -> None:
        print(time.time(), flush=True)
        os._exit(0)

    Model.training_step = tell  # type: ignore[method-assign, assignment]
    (bare if name == "bare" else managed)(folder)


PIECES = {"step": per_step, "checkpoint": per_checkpoint, "start": per_start}


def main() -> None:
    warnings.simplefilter("ignore")
    started = [a.partition("=")[2] for a in sys.argv if a.startswith("--start=")]
    if started:
        first_step(started[0], sys.argv[-1])
    from loguru import logger

    logger.remove()
    print("| cost | bare Lightning | Manager | |\n|---|---|---|---|")
    asked = [name for name in PIECES if name in sys.argv]
    for name in asked or PIECES:
        PIECES[name]()


if __name__ == "__main__":
    main()
