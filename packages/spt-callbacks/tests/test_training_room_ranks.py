"""Two real processes: teachers stay equal, stopping is agreed on, rows of all ranks are written."""

import copy
import sys
from pathlib import Path

import lightning as pl
import pytest
import torch
import torch.distributed as dist
from spt_callbacks import (
    EarlyStopping,
    EnvironmentDumpCallback,
    OnlineWriter,
    TeacherStudentCallback,
    ema_update,
)
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler

sys.path.insert(0, str(Path(__file__).parent))
from callback_ranks import run_ranks

pytestmark = pytest.mark.distributed
WORLD_SIZE = 2


class Teaching(nn.Module):
    def __init__(self):
        super().__init__()
        self.student = nn.Linear(4, 4)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)

    def update_teacher(self):
        ema_update(self.teacher, self.student, 0.9)


class Plain(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.pair = Teaching()

    def training_step(self, batch, batch_idx):
        return {"loss": self.pair.student(batch["x"]).square().mean()}

    def validation_step(self, batch, batch_idx):
        # each rank sees another score: rank 0 improves, rank 1 does not
        self.log("score", float(self.current_epoch * (1 - 2 * self.global_rank)), sync_dist=False)
        return {"embedding": batch["x"]}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def rows():
    generator = torch.Generator().manual_seed(0)
    return [{"x": torch.randn(4, generator=generator), "id": i} for i in range(16)]


def fit(rank, folder):
    torch.manual_seed(0)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=WORLD_SIZE,
        strategy="ddp",
        max_epochs=6,
        accumulate_grad_batches=2,
        callbacks=[
            TeacherStudentCallback(),
            OnlineWriter(["embedding", "id"], "rows", "validation", every_k_epochs=2),
            OnlineWriter("id", "own", "validation", all_gather=False),
            EarlyStopping("max", metric_name="score", patience=2),
            EnvironmentDumpCallback(),
        ],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )
    sampler = DistributedSampler(rows(), WORLD_SIZE, rank, shuffle=False)
    loader = DataLoader(rows(), batch_size=2, sampler=sampler)
    module = Plain()
    trainer.fit(module, loader, loader)
    torch.save((trainer.current_epoch, module.state_dict()), f"{folder}/rank{rank}.pt")


def worker(rank, folder):
    dist.init_process_group("gloo")
    fit(rank, folder)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(__file__, folder, WORLD_SIZE)
    return folder, [torch.load(folder / f"rank{rank}.pt") for rank in range(WORLD_SIZE)]


def test_the_teachers_of_all_ranks_are_equal(outcome):
    (_, first), (_, second) = outcome[1]
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["pair.teacher.weight"], first["pair.student.weight"])


def test_the_ranks_stop_together(outcome):
    # rank 1's score falls from the start, so it runs out of patience after three validations
    assert [epochs for epochs, _ in outcome[1]] == [3, 3]


def test_the_rows_of_all_ranks_are_in_one_file(outcome):
    folder = outcome[0]
    files = sorted(path.name for path in (folder / "rows").iterdir())
    assert files == ["validation_epoch=0.pt", "validation_epoch=2.pt"]
    saved = torch.load(folder / "rows" / files[0])
    assert sorted(saved["id"].tolist()) == list(range(16))
    for identity, row in zip(saved["id"].tolist(), saved["embedding"], strict=True):
        assert torch.equal(row, rows()[identity]["x"])


def test_each_rank_can_write_its_own(outcome):
    saved = torch.load(outcome[0] / "own" / "validation_epoch=1_rank=1.pt")
    assert saved["id"].tolist() == list(range(1, 16, 2))


def test_the_environment_is_written_once(outcome):
    assert not (outcome[0] / "environment_v1.json").exists()
