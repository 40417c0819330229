"""Two real processes: averaged probe gradients, gathered queues."""

import os
import subprocess
import sys

import lightning as pl
import pytest
import torch
import torch.distributed as dist
from spt_callbacks import OnlineKNN, OnlineProbe, RankMe
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler

pytestmark = pytest.mark.distributed


class Identity(pl.LightningModule):
    """Its features are its inputs, so what a probe sees is known."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        return {"loss": self.weight.sum(), "embedding": batch["x"]}

    def validation_step(self, batch, batch_idx):
        return {"embedding": batch["x"]}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def rows():
    generator = torch.Generator().manual_seed(0)
    return [{"x": torch.randn(4, generator=generator) + i % 2, "label": i % 2} for i in range(16)]


def fit(folder, world_size):
    # ranks begin apart: the probe must be that of rank 0 everywhere
    torch.manual_seed(int(os.environ.get("RANK", 0)))
    probe = OnlineProbe(
        name="p",
        probe=nn.Linear(4, 2),
        loss=nn.CrossEntropyLoss(),
        optimizer={"type": "SGD", "lr": 1},
    )
    callbacks = [
        probe,
        OnlineKNN(name="k", queue_length=64, k=3),
        RankMe(target="embedding", queue_length=64),
    ]
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=world_size,
        strategy="ddp" if world_size > 1 else "auto",
        max_epochs=2,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
    data, sampler = rows(), None
    if world_size > 1:
        sampler = DistributedSampler(data, world_size, int(os.environ["RANK"]), shuffle=False)
    loader = DataLoader(data, batch_size=8 // world_size, sampler=sampler)
    trainer.fit(Identity(), loader, loader)
    names = ("eval/k_acc", "eval/p_acc", "rankme")
    metrics = {name: float(trainer.callback_metrics[name]) for name in names}
    return probe.module.state_dict(), metrics


def worker(rank, port, folder):
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", NODE_RANK="0",
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo",
    )  # fmt: skip
    torch.set_num_threads(1)
    torch.save(fit(folder, 2), f"{folder}/{rank}.pt")
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*dataloader.*")
def test_two_ranks_agree_with_one_process(tmp_path):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, str(port), str(tmp_path)]
    ranks = [
        subprocess.Popen([*command, str(rank)], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for process in ranks:
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
    (first, one), (second, two) = (
        torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)
    )
    alone, expected = fit(tmp_path, 1)
    for key, value in alone.items():
        torch.testing.assert_close(first[key], value, rtol=1e-5, atol=1e-6)
        assert torch.equal(first[key], second[key])
    assert one == two
    assert one == pytest.approx(expected, rel=1e-5)


if __name__ == "__main__":
    worker(int(sys.argv[3]), int(sys.argv[1]), sys.argv[2])
