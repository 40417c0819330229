"""Augmentation keyed by sample and epoch, and loaders that resume exactly."""

import lightning as pl
import pytest
import torch
from spt_data import DataModule, FromTorchDataset, Loader, RepeatedRandomSampler, Subset


def jitter(sample):
    return {**sample, "noise": torch.rand(())}


def dataset(n=12):
    return FromTorchDataset([(float(i),) for i in range(n)], ["x"], transform=jitter)


def epochs(n, **options):
    loader = Loader(dataset(), batch_size=4, seed=5, **options)
    return [
        {
            int(i): float(v)
            for batch in loader
            for i, v in zip(batch["sample_idx"], batch["noise"], strict=True)
        }
        for _ in range(n)
    ]


def test_draws_do_not_depend_on_workers_or_order_and_change_each_epoch():
    here = epochs(2)
    assert here[0] != here[1]
    assert epochs(2, num_workers=2, persistent_workers=True) == here
    assert epochs(2, num_workers=1, shuffle=True) == here


def test_the_global_generator_is_left_alone():
    rows = dataset()
    rows.set_epoch(0, seed=1)
    before = torch.get_rng_state()
    first = rows[3]["noise"]
    assert torch.equal(before, torch.get_rng_state())
    assert rows[3]["noise"] == first
    rows.set_epoch(0, seed=2)
    assert rows[3]["noise"] != first
    assert dataset()[3]["noise"] != dataset()[3]["noise"]  # without an epoch: torch's generator


def test_views_of_a_row_draw_differently():
    rows = Subset(dataset(), [4, 5])
    rows.set_epoch(0)
    pair = [rows[(1, view)] for view in range(2)]
    assert [sample["view_idx"] for sample in pair] == [0, 1]
    assert [sample["sample_idx"] for sample in pair] == [5, 5]
    assert pair[0]["noise"] != pair[1]["noise"]


class Recorder(pl.LightningModule):
    def __init__(self, stop_at=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []
        self.stop_at = stop_at

    def training_step(self, batch, batch_idx):
        self.seen.append((batch["sample_idx"].tolist(), batch["noise"].tolist()))
        return {"loss": self.weight * batch["x"].mean()}

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if len(self.seen) == self.stop_at:
            self.trainer.save_checkpoint(self.trainer.default_root_dir + "/stop.ckpt")

    def on_train_epoch_end(self):
        if len(self.seen) == -(self.stop_at or 0):
            self.trainer.save_checkpoint(self.trainer.default_root_dir + "/stop.ckpt")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(folder, module, ckpt=None, **options):
    spec = {"dataset": dataset(), "batch_size": 4, "seed": 7, **options}
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(module, datamodule=DataModule(train=spec), ckpt_path=ckpt)
    return module.seen


@pytest.mark.filterwarnings("ignore:.*no `validation_step`")
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("stop_at", [4, 5, -3])
@pytest.mark.parametrize("order", ["shuffle", "sampler"])
def test_a_run_goes_on_with_the_very_same_batches(tmp_path, num_workers, stop_at, order):
    def options():
        value = True if order == "shuffle" else RepeatedRandomSampler(12, seed=1)
        return {order: value, "num_workers": num_workers}

    whole = fit(str(tmp_path), Recorder(stop_at), **options())
    assert len(whole) == 9
    rest = fit(str(tmp_path), Recorder(), ckpt=str(tmp_path / "stop.ckpt"), **options())
    assert rest == whole[abs(stop_at) :]
