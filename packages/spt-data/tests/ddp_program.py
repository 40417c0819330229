"""One rank of a run: trains on a DataModule, writes what it saw; the tests start two."""

import json
import os
from pathlib import Path

import datasets as hf
import lightning as pl
import torch
from spt_data import DataModule, FromTorchDataset, HFIterableDataset, RepeatedRandomSampler


def jitter(sample):
    return {**sample, "noise": torch.rand(())}


class Recorder(pl.LightningModule):
    """Notes rows and noise of each batch."""

    def __init__(self, stop_at: int | None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.stop_at = stop_at
        self.seen: list = []

    def training_step(self, batch, batch_idx):
        rows = torch.stack([batch[key].double() for key in ("x", "sample_idx", "noise")], 1)
        self.seen.append(rows.tolist())
        return self.weight * batch["x"].float().mean()

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if self.stop_at == len(self.seen):
            self.trainer.save_checkpoint(Path(self.trainer.default_root_dir) / "stop.ckpt")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def dataset(kind: str):
    if kind == "stream":
        rows = hf.Dataset.from_dict({"x": list(range(24))}).to_iterable_dataset(num_shards=4)
        return HFIterableDataset(rows, transform=jitter).shuffle(buffer_size=4)
    return FromTorchDataset([(i,) for i in range(24)], ["x"], transform=jitter)


def run(kind: str, folder: Path, stop_at: int | None, ckpt: Path | None) -> list:
    spec = {
        "dataset": dataset(kind), "batch_size": 2, "num_workers": 1, "seed": 5,
    }  # fmt: skip
    if kind == "shuffle":
        torch.manual_seed(3 + int(os.environ["RANK"]))  # as runs do for their dropout
        spec["shuffle"] = True
    if kind == "map":
        spec["sampler"] = RepeatedRandomSampler(24, seed=1)
    module = Recorder(stop_at)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder / kind,
    )
    trainer.fit(module, datamodule=DataModule(train=spec), ckpt_path=ckpt)
    return module.seen


def worker(rank, folder) -> None:
    """Run whole, and then from the checkpoint, for all kinds."""
    folder, seen = Path(folder), {}
    for kind in ("map", "stream", "shuffle", "plain"):
        seen[kind] = run(kind, folder, 7, None)
        seen[f"{kind} resumed"] = run(kind, folder, None, folder / kind / "stop.ckpt")
    (folder / f"rank{rank}.json").write_text(json.dumps(seen))
