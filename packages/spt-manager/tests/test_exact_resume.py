"""A run that is stopped after any batch and continued equals the run that was never stopped."""

import csv
import os
import random
import signal

import lightning as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from loguru import logger
from spt_callbacks import OnlineProbe, OnlineQueue
from spt_callbacks.queue import queues_of
from spt_manager import Manager, config_context
from spt_manager.preemption import Stopped
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torchdata.stateful_dataloader import StatefulDataLoader
from torchmetrics import CatMetric, MaxMetric, MeanMetric

pytestmark = [pytest.mark.filterwarnings("ignore:.*dataloader.*"), pytest.mark.slow]

BATCHES, EPOCHS = 4, 3
QUIET = {"default_callbacks": {"env_dump": False, "trainer_info": False}}


class Rows(Dataset):
    """Rows with noise from all three generators, as augmentations draw it."""

    def __len__(self):
        return 4 * BATCHES

    def __getitem__(self, i):
        noise = torch.rand(4) + random.random() + np.random.rand()  # noqa: NPY002
        return {"x": torch.full((4,), float(i)) / 8 + 0.1 * noise.float(), "label": i % 2}


class Stream(IterableDataset):
    def __iter__(self):
        return iter([Rows()[i] for i in range(4 * BATCHES)])


class Model(pl.LightningModule):
    def __init__(self, schedule="step"):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.3))
        self.head = nn.Linear(6, 1)
        self.schedule = schedule

    def training_step(self, batch, batch_idx):
        embedding = self.body(batch["x"])
        loss = self.head(embedding).square().mean() * (1 + 0.1 * random.random())
        self.log("fit/loss", loss, on_step=True, on_epoch=True)
        self.log("fit/largest", loss, on_step=False, on_epoch=True, reduce_fx="max")
        return {"loss": loss, "embedding": embedding.detach()}

    def validation_step(self, batch, batch_idx):
        embedding = self.body(batch["x"])
        noise = np.random.rand()  # noqa: NPY002
        self.log("val/loss", self.head(embedding).square().mean() + noise)
        return {"embedding": embedding}

    def on_train_epoch_start(self):
        if self.schedule == "hooks":
            torch.rand(3)  # a hook that draws between the epochs

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.05)
        if self.schedule == "plateau":
            schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
            entry = {"scheduler": schedule, "monitor": "val/loss", "interval": "epoch"}
        else:
            interval = "epoch" if self.schedule == "epoch" else "step"
            schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.7)
            entry = {"scheduler": schedule, "interval": interval}
        return {"optimizer": optimizer, "lr_scheduler": entry}


LOADERS = {
    "plain": lambda: DataLoader(Rows(), batch_size=4, shuffle=True),
    "workers": lambda: DataLoader(Rows(), batch_size=4, shuffle=True, num_workers=1),
    "stateful": lambda: StatefulDataLoader(Rows(), batch_size=4, shuffle=True),
    "stream": lambda: DataLoader(Stream(), batch_size=4),
    "stateful stream": lambda: StatefulDataLoader(Stream(), batch_size=4),
    "generator": lambda: DataLoader(
        Rows(), batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(3)
    ),
    "two": lambda: {
        "a": StatefulDataLoader(Rows(), batch_size=4, shuffle=True),
        "b": DataLoader(Rows(), batch_size=8, shuffle=True),
    },
}


class Data(pl.LightningDataModule):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def train_dataloader(self):
        return LOADERS[self.kind]()

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch.get("a", batch)

    def val_dataloader(self):
        return DataLoader(Rows(), batch_size=4)


class SignalAt(pl.Callback):
    """Sends this process a real signal in the middle of a chosen batch."""

    def __init__(self, hook, count, number=signal.SIGTERM):
        self.hook, self.left, self.number = hook, count, number

    def _tick(self, hook, trainer):
        if hook == self.hook and not trainer.sanity_checking:
            if self.left == 0:
                os.kill(os.getpid(), self.number)
            self.left -= 1

    def on_train_batch_start(self, trainer, *args):
        self._tick("train", trainer)

    def on_validation_batch_start(self, trainer, *args):
        self._tick("validation", trainer)


def start(kind, stop=None, schedule="step", run_id=None, savers=(), own=(), **options):
    def trainer():
        probe = OnlineProbe(
            name="probe",
            input="embedding",
            target="label",
            probe=nn.Linear(6, 2),
            loss=nn.CrossEntropyLoss(),
        )
        queue = OnlineQueue("embedding", queue_length=10)
        return pl.Trainer(
            accelerator="cpu",
            log_every_n_steps=1,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[probe, queue, *savers, *own, *([stop] if stop else [])],
            **{"max_epochs": EPOCHS, **options},
        )

    run = Manager(
        trainer=trainer,
        module=lambda: Model(schedule),
        data=Data(kind),
        seed=5,
        run_id=run_id,
    )
    return run


def outcome(run):
    """Everything a run leaves behind, in plain form."""
    trainer = run.trainer
    (probe,) = [entry for entry in trainer.callbacks if isinstance(entry, OnlineProbe)]
    with (run.run_dir / "metrics.csv").open() as file:
        rows = [dict(sorted(row.items())) for row in csv.DictReader(file)]
    rings = queues_of(trainer).rings
    return {
        "weights": run.module.state_dict(),
        "probe": dict(probe.state_dict()["module"]),
        "optimizer": run.module.optimizers(use_pl_optimizer=False).state_dict()["state"],
        "queues": {str(key): ring.newest(ring.length) for key, ring in rings.items()},
        "rows": rows,
        "steps": trainer.global_step,
        "epochs": trainer.current_epoch,
        "rng": torch.get_rng_state(),
    }


def assert_same(a, b, path=""):
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert list(a) == list(b), path
        for key in a:
            assert_same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{path}/{i}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    else:
        assert a == b, (path, a, b)


def stop_and_go_on(kind, stops, schedule="step", **options):
    run_id = f"run{len(stops)}"
    for hook, count in stops:
        first = start(kind, SignalAt(hook, count), schedule, run_id, **options)
        with pytest.raises(Stopped, match="preempted"):
            first()
    again = start(kind, None, schedule, run_id, **options)
    again()
    assert again.run_dir == first.run_dir
    return again


@pytest.fixture
def cache(tmp_path):
    with config_context(cache_dir=str(tmp_path / "cache"), **QUIET):
        yield tmp_path / "cache"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    known = {}

    def run(kind, schedule="step", **options):
        key = (kind, schedule, *options.items())
        if key not in known:
            whole = start(kind, None, schedule, **options)
            with config_context(cache_dir=str(tmp_path_factory.mktemp("whole")), **QUIET):
                whole()
            known[key] = outcome(whole)
        return known[key]

    return run


@pytest.mark.parametrize("batch", range(BATCHES * EPOCHS))
@pytest.mark.parametrize("kind", ["plain", "stateful"])
def test_a_stop_after_any_batch(cache, undisturbed, kind, batch):
    assert_same(undisturbed(kind), outcome(stop_and_go_on(kind, [("train", batch)])))


@pytest.mark.parametrize("batch", [0, 3, 5])
@pytest.mark.parametrize("kind", ["workers", "stream", "stateful stream", "generator", "two"])
def test_any_loader(cache, undisturbed, kind, batch):
    assert_same(undisturbed(kind), outcome(stop_and_go_on(kind, [("train", batch)])))


@pytest.mark.parametrize("batch", [3, 6])
@pytest.mark.parametrize("schedule", ["epoch", "plateau", "hooks"])
def test_any_schedule(cache, undisturbed, schedule, batch):
    again = stop_and_go_on("plain", [("train", batch)], schedule)
    assert_same(undisturbed("plain", schedule), outcome(again))


@pytest.mark.parametrize("batch", [3, 4, 7])
@pytest.mark.parametrize(
    "options",
    [
        {"max_epochs": -1, "max_steps": 11},
        {"accumulate_grad_batches": 3},
        {"val_check_interval": 2},
        {"check_val_every_n_epoch": 2},
        {"limit_train_batches": 3},
    ],
    ids=str,
)
def test_any_trainer(cache, undisturbed, options, batch):
    whole = undisturbed("plain", **options)
    assert_same(whole, outcome(stop_and_go_on("plain", [("train", batch)], **options)))


@pytest.mark.parametrize("batch", [0, 2, 3, 4, 11])
def test_a_stop_inside_validation(cache, undisturbed, batch):
    assert_same(undisturbed("plain"), outcome(stop_and_go_on("plain", [("validation", batch)])))


@pytest.mark.parametrize("kind", list(LOADERS))
def test_a_finished_run_that_is_started_again_stands_where_it_ended(cache, kind):
    """As after a kill between the last save and the end of the process."""
    first = start(kind, run_id="same")
    first()
    again = start(kind, run_id="same")
    again()
    assert_same(outcome(first), outcome(again))


def stopped_and_continued(module, batch):
    """A run of the module that stops at a batch and goes on to the end of an undisturbed one."""

    def made(run_id, stop=None):
        run = start("plain", stop, run_id=run_id)
        run._given["module"] = module
        return run

    whole = made("whole")
    whole()
    with pytest.raises(Stopped, match="preempted"):
        made("stopped", SignalAt("train", batch))()
    again = made("stopped")
    again()
    assert_same(outcome(whole), outcome(again))
    return again


class Manual(Model):
    """Steps its optimizer itself, every third batch."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        state = super().training_step(batch, batch_idx)
        self.manual_backward(state["loss"])
        if batch_idx % 3 == 2:
            self.optimizers().step()
            self.optimizers().zero_grad()
        return state


@pytest.mark.parametrize("batch", [0, 1, 4])
def test_a_module_that_steps_itself(cache, batch):
    stopped_and_continued(Manual, batch)


class Measured(Model):
    """Logs metrics that have seen a part of the epoch when it stops: sums, and a list of rows."""

    def __init__(self):
        super().__init__()
        self.mean, self.rows = MeanMetric(), CatMetric()
        self.many = nn.ModuleDict({"max": MaxMetric()})

    def training_step(self, batch, batch_idx):
        state = super().training_step(batch, batch_idx)
        loss = state["loss"].detach()
        self.mean(loss)
        self.many["max"](loss)
        self.rows.update(loss)
        self.log("own/mean", self.mean, on_step=True, on_epoch=True)
        self.log("own/max", self.many["max"], on_step=False, on_epoch=True)
        return state

    def on_train_epoch_end(self):
        self.log("own/rows", float(len(self.rows.compute())))
        self.log("own/last", self.rows.compute()[-1])
        self.rows.reset()


@pytest.mark.parametrize("batch", [1, 3, 6])
def test_metrics_go_on_in_the_middle_of_an_epoch(cache, batch):
    again = stopped_and_continued(Measured, batch)
    counted = [row["own/rows"] for row in outcome(again)["rows"] if row["own/rows"]]
    assert counted == [f"{BATCHES}.0"] * EPOCHS


@pytest.mark.parametrize("schedule", ["step", "hooks"])
@pytest.mark.parametrize("kind", list(LOADERS))
def test_a_crash_after_the_end_of_an_epoch(cache, undisturbed, kind, schedule):
    """The checkpoint of the epoch's end is the last one; nothing tells that a crash is coming."""

    class Crash(pl.Callback):
        def on_train_batch_start(self, trainer, *args):
            if trainer.global_step == BATCHES:
                raise RuntimeError("planned failure")

    first = start(kind, Crash(), schedule, "crashed")
    with pytest.raises(RuntimeError, match="planned failure"):
        first()
    again = start(kind, None, schedule, "crashed")
    again()
    assert_same(undisturbed(kind, schedule), outcome(again))


def test_many_stops(cache, undisturbed):
    stops = [("train", 1), ("validation", 1), ("train", 0), ("train", 2), ("validation", 3)]
    assert_same(undisturbed("stateful"), outcome(stop_and_go_on("stateful", stops)))


@pytest.mark.parametrize("step", [4, 6])
@pytest.mark.parametrize("options", [{}, {"max_epochs": -1, "max_steps": 12}], ids=str)
def test_a_checkpoint_of_a_hook_skips_no_epoch(cache, undisturbed, step, options):
    """A saver's own file, in the last batch of an epoch too, as ``ckpt_path`` of another run."""

    def saver():
        return ModelCheckpoint(
            filename="at-{step}", every_n_train_steps=step, save_top_k=-1, monitor=None
        )

    first = start("plain", savers=[saver()], **options)
    first()
    found = first.run_dir / "checkpoints" / f"at-step={step}.ckpt"
    again = start("plain", savers=[saver()], **options)
    again.ckpt_path = found
    again()
    expected, got = outcome(first), outcome(again)
    for name in ("weights", "optimizer", "probe", "queues", "steps", "epochs"):
        assert_same(expected[name], got[name], name)


@pytest.mark.parametrize("batch", [1, 3, 6])
def test_beside_savers_of_the_users_own(cache, batch):
    """One of them writes ``last.ckpt`` itself; another one keeps the best."""

    def savers():
        return [
            ModelCheckpoint(monitor="fit/loss", every_n_train_steps=1, filename="best"),
            ModelCheckpoint(save_last=True, every_n_train_steps=1, filename="each"),
        ]

    whole = start("plain", savers=savers())
    whole()
    with pytest.raises(Stopped, match="preempted"):
        start("plain", SignalAt("train", batch), savers=savers(), run_id="stopped")()
    again = start("plain", savers=savers(), run_id="stopped")
    again()
    assert_same(outcome(whole), outcome(again))
    best = [
        next(c for c in r.trainer.callbacks if getattr(c, "monitor", None) == "fit/loss")
        for r in (whole, again)
    ]
    assert best[0].best_model_score == best[1].best_model_score


def test_a_checkpoint_of_a_bare_trainer_is_a_start_with_a_warning(cache, tmp_path):
    bare = pl.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    bare.fit(Model(), Data("plain"))
    bare.save_checkpoint(tmp_path / "bare.ckpt")
    said = []
    sink = logger.add(lambda message: said.append(str(message)), level="WARNING")
    try:
        run = start("plain")
        run.ckpt_path = tmp_path / "bare.ckpt"
        run()
    finally:
        logger.remove(sink)
    assert any("was not saved under a Manager" in text for text in said)
    assert (run.trainer.global_step, run.trainer.current_epoch) == (BATCHES * EPOCHS, EPOCHS)
    steps = [int(row["step"]) for row in outcome(run)["rows"] if row["fit/loss_step"]]
    assert steps == list(range(BATCHES, BATCHES * EPOCHS))


def test_the_checkpoint_loads_with_weights_only(cache):
    run = start("stateful", SignalAt("train", 2))
    with pytest.raises(Stopped, match="preempted") as stopped:
        run()
    assert stopped.value.code == 75
    saved = torch.load(run.run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["spt_manager"]["point"] == "batch"
    assert saved["global_step"] == 3
