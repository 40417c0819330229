"""What two ranks that share the parameters do in `test_fsdp2.py`."""

import os
import signal
from pathlib import Path

import lightning as pl
import pytest
import torch
from spt_manager import Manager, Stopped, make_it_fast
from spt_manager import set as set_config
from spt_manager.fsdp2 import assert_aligned_wrapping, describe_fsdp_strategy, is_fsdp_strategy
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(4, 8)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.GELU()) for _ in range(2))
        self.scale = nn.Parameter(torch.ones(8))

    def training_step(self, batch, batch_idx):
        x = self.stem(batch)
        for block in self.blocks:
            x = x + block(x)
        loss = (x * self.scale).square().mean()
        self.log("fit/loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.02)


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(torch.linspace(-1, 1, 128).reshape(32, 4), batch_size=4, shuffle=True)


class SignalRank(pl.Callback):
    def __init__(self, rank, step):
        self.rank, self.step = rank, step

    def on_train_batch_start(self, trainer, *args):
        if trainer.global_rank == self.rank and trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def start(run_id, *callbacks):
    trainer = {
        "_target_": "lightning.Trainer",
        "accelerator": "cpu",
        "devices": 2,
        "max_epochs": 3,
        "strategy": "fsdp2",
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "callbacks": list(callbacks),
    }
    return Manager(trainer=trainer, module=Model, data=Data(), seed=4, run_id=run_id)


def weights(run):
    whole = {n: getattr(p, "full_tensor", p.clone)() for n, p in run.module.named_parameters()}
    return {name: value.detach().clone() for name, value in whole.items()}


def main(folder):
    folder = Path(folder)
    done = make_it_fast(verbose=False)
    assert done["matmul_precision"] == torch.get_float32_matmul_precision() == "high"
    set_config(
        cache_dir=str(folder / "cache"),
        requeue_checkpoint_every_n_steps=2,
        default_callbacks={"env_dump": False},
    )
    whole = start("whole")
    whole()
    kept = [n for n, p in whole.module.named_parameters() if not isinstance(p, DTensor)]
    assert kept == ["scale"]
    assert is_fsdp_strategy(whole.trainer.strategy)
    assert describe_fsdp_strategy(whole.trainer.strategy)["data_parallel_size"] == 2
    expected = weights(whole)
    for step, rank in ((1, 1), (3, 0), (6, 1)):
        first = start(f"stopped{step}", SignalRank(rank, step))
        with pytest.raises(Stopped, match="preempted"):
            first()
        again = start(f"stopped{step}")
        again()
        found = weights(again)
        assert all(torch.equal(found[name], expected[name]) for name in expected), step
    assert_aligned_wrapping(whole.module, again.module)
    with pytest.raises(RuntimeError, match="shard both alike"):
        assert_aligned_wrapping(whole.module.stem, nn.Linear(4, 8))
    if whole.trainer.global_rank == 0:
        torch.save(expected, folder / "weights.pt")
