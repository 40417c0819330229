"""Augmentation keyed by sample and epoch, and loaders that resume exactly."""

import lightning as pl
import pytest
import torch
from spt_data import (
    DataModule,
    FromDictDataset,
    FromTorchDataset,
    Loader,
    RepeatedRandomSampler,
    Subset,
    random_split,
)


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


@pytest.mark.parametrize("num_workers", [0, 1])
def test_loaders_of_one_dataset_have_clocks_of_their_own(num_workers):
    """A validation inside an epoch changes nothing of the training."""
    options = {"batch_size": 2, "num_workers": num_workers, "prefetch_factor": None}
    if num_workers:
        options |= {"prefetch_factor": 1, "persistent_workers": True}

    def run(validate):
        first, second = random_split(dataset(), [8, 4], torch.Generator().manual_seed(0))
        train, val = Loader(first, seed=1, **options), Loader(second, seed=2, **options)
        seen = []
        for _ in range(2):
            for batch in train:
                seen.append(batch["noise"].tolist())
                if validate:
                    list(val)
        return seen

    assert run(True) == run(False)


def test_asking_an_unused_loader_for_its_state_changes_nothing():
    rows = dataset()
    expected = [batch["noise"].tolist() for batch in Loader(rows, batch_size=4, seed=5)]
    unused, seen = Loader(rows, batch_size=4, seed=6), []
    for batch in Loader(rows, batch_size=4, seed=5):
        seen.append(batch["noise"].tolist())
        unused.state_dict()
    assert seen == expected


def test_samples_may_be_named_by_strings_and_by_nothing():
    def noise(names, **options):
        rows = [{"sample_idx": name, "x": 0} for name in names]
        return [s["noise"].item() for s in Loader(
            FromDictDataset(rows, transform=jitter), batch_size=None, seed=1, **options)]  # fmt: skip

    assert noise("ab") == noise("ab")
    assert noise("ab") == noise("ba")[::-1]
    with pytest.raises(TypeError, match=r"`sample_idx` must be an int or a string.* has \[1\]"):
        noise([[1]])
    bare = FromTorchDataset([(0,)] * 4, ["x"], transform=jitter, add_sample_idx=False)
    first, again = (
        torch.cat([batch["noise"] for batch in Loader(bare, batch_size=2, seed=1)])
        for _ in range(2)
    )
    assert torch.equal(first, again)
    assert len(first.unique()) == 4


class Nameless(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield from ({"x": i} for i in range(4))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_stream_without_names_resumes_with_its_draws(num_workers):
    def loader():
        rows = FromDictDataset(Nameless(), transform=jitter)
        return Loader(rows, batch_size=1, seed=1, num_workers=num_workers)

    running = loader()
    batches = iter(running)
    next(batches)
    state = running.state_dict()
    rest = [batch["noise"].item() for batch in batches]
    resumed = loader()
    resumed.load_state_dict(state)
    assert [batch["noise"].item() for batch in resumed] == rest
    assert len(set(rest)) == 3


@pytest.mark.parametrize("before", [0, 2])
def test_a_state_of_other_workers_is_refused_by_name(before):
    loader = Loader(dataset(), batch_size=4, num_workers=before)
    next(iter(loader))
    other = Loader(dataset(), batch_size=4, num_workers=2 - before)
    with pytest.raises(ValueError, match=f"this one has num_workers={2 - before}; resume with"):
        other.load_state_dict(loader.state_dict())


@pytest.mark.filterwarnings("ignore:.*no `validation_step`")
def test_several_training_loaders_resume(tmp_path):
    class Both(Recorder):
        def training_step(self, batch, batch_idx):
            self.seen.append([(b["sample_idx"].tolist(), b["noise"].tolist()) for b in batch])
            return self.weight * batch[0]["x"].mean()

    def run(module, ckpt=None):
        spec = [{"dataset": dataset(n), "batch_size": 4, "seed": n} for n in (12, 16)]
        trainer = pl.Trainer(
            max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        )  # fmt: skip
        data = DataModule(train=spec)
        trainer.fit(module, datamodule=data, ckpt_path=ckpt)
        return module.seen, data.state_dict()["train"]

    whole, states = run(Both(5))
    assert [state["spt_data"]["seed"] for state in states] == [12, 16]
    assert run(Both(), tmp_path / "stop.ckpt")[0] == whole[5:]
    fewer = DataModule(train=[{"dataset": dataset(), "batch_size": 4}])
    fewer.load_state_dict({"train": states})
    with pytest.raises(ValueError, match="state is of 2 train loaders, and there are 1"):
        fewer.setup("fit")
