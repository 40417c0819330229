"""The Manager around real, small trainings."""

import functools
import itertools
import json
import os
import signal
from collections import OrderedDict
from pathlib import Path
from types import MappingProxyType

import lightning as pl
import pytest
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel
from omegaconf import OmegaConf
from spt_manager import Manager, Stopped, config_context
from spt_manager.checkpointing import AtomicCheckpointIO, is_whole, newest_good
from spt_manager.checkpointing import io as io_file
from spt_registry import RegistryLogger, open_registry
from torch.utils.data import DataLoader

pytestmark = pytest.mark.filterwarnings("ignore:.*dataloader.*")


class Model(pl.LightningModule):
    def __init__(self, width=4, fail_at=None):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.BatchNorm1d(width))
        self.fail_at = fail_at

    def training_step(self, batch, batch_idx):
        if self.global_step == self.fail_at:
            raise RuntimeError("planned failure")
        loss = self.layer(batch).sum(1).sub(1).square().mean()
        self.log("fit/loss", loss)
        return {"loss": loss}

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.05)
        return {
            "optimizer": optimizer,
            "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5),
        }


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        rows = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))
        return DataLoader(rows, batch_size=8)


def make_trainer(tmp_path, epochs=2, **kwargs):
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path / "elsewhere",
        **kwargs,
    )


def manager(tmp_path, epochs=2, module=None, trainer=None, **kwargs):
    return Manager(
        trainer=trainer or make_trainer(tmp_path, epochs),
        module=module or Model,
        data=Data(),
        **{"seed": 0, **kwargs},
    )


@pytest.fixture
def cache(tmp_path):
    with config_context(cache_dir=str(tmp_path / "cache")):
        yield tmp_path / "cache"


def sidecar(run):
    return json.loads((run.run_dir / "sidecar.json").read_text())


def test_a_run_has_its_own_place(tmp_path, cache):
    run = manager(tmp_path)
    run()
    assert run.run_dir.parent.parent.parent == cache / "runs"
    files = {path.name for path in run.run_dir.iterdir()}
    assert {"sidecar.json", "heartbeat", "metrics.csv", "run_meta.json", "checkpoints"} <= files
    names = {path.name for path in (run.run_dir / "checkpoints").iterdir()}
    assert {"last.ckpt", "last-previous.ckpt"} <= names
    state = sidecar(run)
    assert state["status"] == "completed"
    assert state["hparams"]["width"] == 4
    assert state["last_checkpoint_path"].endswith("last.ckpt")
    assert not (tmp_path / "elsewhere").exists()
    assert not (tmp_path / "lightning_logs").exists()
    assert torch.load(run.run_dir / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 2


def test_without_a_cache_dir_it_is_fit(tmp_path):
    with config_context(cache_dir=None):
        trainer = make_trainer(tmp_path, logger=False, enable_checkpointing=False)
        callbacks = list(trainer.callbacks)
        run = manager(tmp_path, trainer=trainer)
        run()
    assert run.run_dir is None
    assert trainer.callbacks == callbacks
    assert trainer.current_epoch == 2


LAUNCHERS = {
    "slurm": ({"SLURM_JOB_ID": "77"}, "SLURM_RESTART_COUNT"),
    "torchrun": ({"TORCHELASTIC_RUN_ID": "mine"}, "TORCHELASTIC_RESTART_COUNT"),
}


def launch(monkeypatch, launcher, restart_count):
    """As in a new process of a launcher's job."""
    variables, counter = LAUNCHERS[launcher]
    for name, value in {**variables, counter: str(restart_count)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("spt_registry.run.identity._runs", itertools.count())


@pytest.mark.parametrize("way", ["run_id", "same manager", *LAUNCHERS])
def test_calling_again_goes_on_as_if_nothing_had_happened(tmp_path, cache, way, monkeypatch):
    whole = manager(tmp_path, epochs=5)
    whole()
    if way in LAUNCHERS:
        launch(monkeypatch, way, 0)
    ids = {"run_id": "mine"} if way == "run_id" else {}
    first = manager(tmp_path, epochs=3, **ids)
    first()
    if way == "same manager":
        again = first
        again.trainer.fit_loop.max_epochs = 5
    else:
        if way in LAUNCHERS:
            launch(monkeypatch, way, 1)
        again = manager(tmp_path, epochs=5, seed=9, **ids)
    again()
    assert again.run_dir == first.run_dir
    expected, found = whole.module.state_dict(), again.module.state_dict()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert len(sidecar(again)["attempts"]) == 2
    (record,) = [r for r in open_registry(cache_dir=cache).query() if r.run_dir == again.run_dir]
    assert record.status == "completed"
    steps = open_registry(cache_dir=cache).history(record.run_id)["step"].tolist()
    assert steps == list(range(15))


def test_new_runs_get_new_places(tmp_path, cache):
    first, second = manager(tmp_path), manager(tmp_path)
    first()
    second()
    assert first.run_dir != second.run_dir


def test_two_runs_of_one_job_go_on_in_their_own_places(tmp_path, cache, monkeypatch):
    """Also a second program in one interactive allocation, which SLURM does not count."""
    launch(monkeypatch, "slurm", 0)
    first = [manager(tmp_path, epochs=1), manager(tmp_path, epochs=1)]
    for run in first:
        run()
    monkeypatch.setattr("sys.argv", ["another.py"])
    other = manager(tmp_path, epochs=1)
    other()
    monkeypatch.undo()
    launch(monkeypatch, "slurm", 1)
    again = [manager(tmp_path, epochs=2), manager(tmp_path, epochs=2)]
    for run in again:
        run()
    assert [run.run_dir for run in again] == [run.run_dir for run in first]
    assert len({run.run_dir for run in [*first, other]}) == 3
    launch(monkeypatch, "slurm", 0)  # a recycled number
    recycled = manager(tmp_path, epochs=1)
    recycled()
    assert recycled.run_dir not in {run.run_dir for run in [*first, other]}


def test_a_rank_that_nobody_has_started_with_the_others_guesses_nothing(cache, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 0)  # Lightning's, of the whole process
    monkeypatch.setenv("NODE_RANK", "1")
    trainer = pl.Trainer(accelerator="cpu", devices=1, num_nodes=2, strategy="ddp", logger=False)
    with pytest.raises(RuntimeError, match="This is rank 1, but no launcher has started the ranks"):
        Manager(trainer, Model, Data())()
    assert not list(cache.rglob("run_meta.json"))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_corrupt_checkpoint_is_set_aside_and_the_newest_good_one_used(tmp_path, cache, damage):
    run = manager(tmp_path, epochs=3, run_id="mine")
    run()
    last = run.run_dir / "checkpoints" / "last.ckpt"
    content = bytearray(last.read_bytes())
    if damage == "flipped":
        content[content.find(b"state_dict")] ^= 0xFF
    last.write_bytes(bytes(content) if damage == "flipped" else content[: len(content) // 2])
    if damage == "empty":
        last.write_bytes(b"")
    assert not is_whole(last)
    broken = last.read_bytes()
    again = manager(tmp_path, epochs=4, run_id="mine")
    again()
    assert again.trainer.current_epoch == 4
    assert (last.parent / "last.ckpt.corrupt").read_bytes() == broken
    assert is_whole(last)


def test_choosing_among_checkpoints(tmp_path):
    assert newest_good(tmp_path) is None
    torch.save({"optimizer_states": [], "x": 1}, tmp_path / "older.ckpt")
    torch.save({"optimizer_states": [], "x": 2}, tmp_path / "last-previous.ckpt")
    (tmp_path / "last.ckpt").write_bytes(b"torn")
    assert newest_good(tmp_path).name == "last-previous.ckpt"
    (tmp_path / "last.ckpt").write_bytes(b"torn again")
    newest_good(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names[2:] == ["last.ckpt.corrupt", "last.ckpt.corrupt-1", "older.ckpt"][
        : len(names) - 2
    ] or ({"last.ckpt.corrupt", "last.ckpt.corrupt-1"} <= set(names))


def test_weights_alone_are_passed_over(tmp_path):
    torch.save({"optimizer_states": [], "x": 1}, tmp_path / "last-previous.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "newer.ckpt")
    (tmp_path / "last.ckpt").write_bytes(b"torn")
    assert newest_good(tmp_path).name == "last-previous.ckpt"
    assert (tmp_path / "newer.ckpt").exists()


def test_no_flipped_bit_of_the_headers_stops_a_resume(tmp_path):
    """Whatever is flipped in the archive's own data: what is called whole can be loaded."""
    path = tmp_path / "last.ckpt"
    torch.save({"optimizer_states": [], "x": torch.arange(3)}, path)
    content = path.read_bytes()
    directory = content.rfind(b"PK\x05\x06")
    start = int.from_bytes(content[directory + 16 : directory + 20], "little")
    kept = 0
    for byte in [*range(0, 64, 3), *range(start, len(content), 5)]:
        flipped = bytearray(content)
        flipped[byte] ^= 1 << (byte % 8)
        path.write_bytes(flipped)
        if is_whole(path):
            kept += 1
            assert torch.equal(torch.load(path, weights_only=True)["x"], torch.arange(3))
    assert kept < 100


def test_an_error_of_the_disk_is_no_damage_of_the_file(tmp_path, monkeypatch):
    import zipfile

    def busy(*args):
        raise OSError(24, "Too many open files")

    torch.save({"optimizer_states": []}, tmp_path / "last.ckpt")
    monkeypatch.setattr(zipfile, "ZipFile", busy)
    with pytest.raises(OSError, match="Too many open files"):
        newest_good(tmp_path)
    assert (tmp_path / "last.ckpt").exists()


def test_a_save_in_the_background_that_fails_is_raised(tmp_path):
    io = AtomicCheckpointIO(background=True, go_on=True)
    io.save_checkpoint({"x": lambda: None}, tmp_path / "last.ckpt")
    with pytest.raises(Exception, match="pickle|local object"):
        io.wait()
    io.save_checkpoint({"x": 1}, tmp_path / "last.ckpt")
    io.wait()
    assert torch.load(tmp_path / "last.ckpt", weights_only=True) == {"x": 1}


def test_a_file_that_a_killed_writer_of_the_same_number_left_is_no_matter(tmp_path):
    left = tmp_path / f".last.ckpt.{os.getpid()}.0a1b.tmp"
    left.write_bytes(b"torn")
    AtomicCheckpointIO().save_checkpoint({"x": 1}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True) == {"x": 1}


def test_a_part_that_cannot_be_built_fails_the_run(tmp_path, cache):
    def broken():
        raise ZeroDivisionError("in the module")

    run = Manager(make_trainer(tmp_path), broken, Data(), run_id="mine")
    with pytest.raises(ZeroDivisionError, match="in the module"):
        run()
    state = sidecar(run)
    assert state["status"] == "failed"
    assert "ZeroDivisionError: in the module" in state["error"]


def test_being_tested_does_not_complete_a_run(tmp_path, cache):
    class Fails(Model):
        broken = True

        def training_step(self, batch, batch_idx):
            if self.broken and self.trainer.global_step == 3:
                raise ZeroDivisionError("at step 3")
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            return None

    class Both(Data):
        def val_dataloader(self):
            return self.train_dataloader()

    run = Manager(make_trainer(tmp_path), Fails(), Both(), run_id="mine")
    with pytest.raises(ZeroDivisionError, match="at step 3"):
        run()
    assert sidecar(run)["status"] == "failed"
    run.validate()
    assert sidecar(run)["status"] == "failed"
    run.module.broken = False
    run()
    assert sidecar(run)["status"] == "completed"
    run.validate()
    assert sidecar(run)["status"] == "completed"


def test_a_trainer_belongs_to_one_manager(tmp_path, cache):
    trainer = make_trainer(tmp_path)
    manager(tmp_path, trainer=trainer, run_id="one")()
    with pytest.raises(RuntimeError, match="belongs to another Manager, whose run is in .*one"):
        manager(tmp_path, trainer=trainer, run_id="two")()


def test_the_registry_of_the_user_writes_into_the_runs_place(tmp_path, cache):
    elsewhere = RegistryLogger(run_dir=tmp_path / "elsewhere")
    run = manager(tmp_path, trainer=make_trainer(tmp_path, logger=elsewhere), run_id="mine")
    run()
    assert sidecar(run)["status"] == "completed"
    assert not (tmp_path / "elsewhere").exists()


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path):
    io = AtomicCheckpointIO()
    io.save_checkpoint({"x": 1}, tmp_path / "last.ckpt")
    with pytest.raises(Exception, match="pickle|local object"):
        io.save_checkpoint({"x": lambda: None}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True) == {"x": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    with pytest.raises(TypeError, match="`storage_options` is not supported"):
        io.save_checkpoint({}, tmp_path / "last.ckpt", storage_options={})


def test_any_file_name_of_a_saver(tmp_path):
    for name in ("best-[a]*?.ckpt", "loss=0.[5].ckpt", "größe {1}.ckpt"):
        AtomicCheckpointIO().save_checkpoint({"x": name}, tmp_path / name)
        assert torch.load(tmp_path / name, weights_only=True) == {"x": name}
    assert len(list(tmp_path.iterdir())) == 3


def test_a_disk_without_hard_links_keeps_the_one_before_too(tmp_path, monkeypatch):
    def refuse(*args):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    for step in range(3):
        AtomicCheckpointIO().save_checkpoint({"step": step}, tmp_path / "last.ckpt")
    found = {p.name: torch.load(p, weights_only=True)["step"] for p in tmp_path.iterdir()}
    assert found == {"last.ckpt": 2, "last-previous.ckpt": 1}


def test_what_does_not_read_back_takes_nobodys_place(tmp_path, monkeypatch):
    io = AtomicCheckpointIO(go_on=True)
    io.save_checkpoint({"step": 1}, tmp_path / "last.ckpt")
    monkeypatch.setattr(io_file, "is_whole", lambda path: False)
    io.save_checkpoint({"step": 2}, tmp_path / "last.ckpt")
    assert "does not read back as it was written" in str(io.error)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True) == {"step": 1}


def test_a_checkpoint_is_streamed_and_synced_before_and_after_its_rename(tmp_path, monkeypatch):
    written, events = [], []

    def watch(owner, name, tell):
        real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a: tell(*a) or real(*a))

    watch(io_file._Watched, "write", lambda file, data: written.append(len(data)))
    watch(os, "fsync", lambda fd: events.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name))
    watch(os, "replace", lambda old, new: events.append(f"to {Path(new).name}"))
    tensors = {str(i): torch.zeros(1000, 250) for i in range(4)}
    AtomicCheckpointIO().save_checkpoint(tensors, tmp_path / "last.ckpt")
    assert sum(written) > 4_000_000
    assert max(written) <= 1_000_000, "never all of it in memory a second time"
    assert events[0].startswith(".last.ckpt.")
    assert events[1:] == ["to last.ckpt", tmp_path.name]


def test_a_failure_is_recorded_with_its_traceback_and_resumes(tmp_path, cache):
    run = manager(tmp_path, epochs=3, module=lambda: Model(fail_at=4), run_id="mine")
    with pytest.raises(RuntimeError, match="planned failure"):
        run()
    state = sidecar(run)
    assert state["status"] == "failed"
    assert "planned failure" in state["error"]
    assert "training_step" in state["error"]
    again = manager(tmp_path, epochs=3, run_id="mine")
    again()
    assert sidecar(again)["status"] == "completed"
    assert sidecar(again)["error"] is None


def test_a_secret_that_a_module_keeps_reaches_no_sidecar(tmp_path, cache):
    class Keeper(Model):
        def __init__(self, api_key, hub):
            super().__init__()
            self.save_hyperparameters()

    run = manager(tmp_path, epochs=1, module=lambda: Keeper("k-1", {"password": "k-1", "n": 3}))
    run()
    hparams = sidecar(run)["hparams"]
    assert (hparams["api_key"], hparams["hub.password"], hparams["hub.n"]) == ("***", "***", 3)
    for name in ("sidecar.json", "hparams.yaml", "environment.json"):
        assert "k-1" not in (run.run_dir / name).read_text()


def test_ctrl_c_is_an_interruption(tmp_path, cache):
    class Stop(pl.Callback):
        def on_train_batch_end(self, *args):
            raise KeyboardInterrupt

    run = manager(tmp_path, trainer=make_trainer(tmp_path, callbacks=[Stop()]))
    with pytest.raises((KeyboardInterrupt, SystemExit), match="^1?$"):
        run()
    assert sidecar(run)["status"] == "interrupted"


def test_the_users_logger_and_savers_are_used(tmp_path, cache):
    saver = ModelCheckpoint(monitor="fit/loss", filename="best")
    mine = RegistryLogger(tags=["mine"])
    trainer = make_trainer(tmp_path, callbacks=[saver], logger=mine)
    run = manager(tmp_path, trainer=trainer)
    run()
    assert [entry for entry in trainer.loggers if isinstance(entry, RegistryLogger)] == [mine]
    state = sidecar(run)
    assert state["tags"] == ["mine"]
    assert state["checkpoint_path"] == str(run.run_dir / "checkpoints" / "best.ckpt")


def test_ckpt_path_is_for_loading_only(tmp_path, cache):
    first = manager(tmp_path, epochs=2)
    first()
    start = first.save_checkpoint(tmp_path / "epoch=1-loss=0.35.ckpt")
    before = start.read_bytes()
    second = manager(tmp_path, epochs=3, ckpt_path=start)
    second()
    assert second.run_dir != first.run_dir
    assert second.trainer.global_step == 9
    assert start.read_bytes() == before
    with pytest.raises(ValueError, match="`upload_wandb` needs a WandbLogger"):
        second.save_checkpoint(upload_wandb=True)
    with pytest.raises(RuntimeError, match="nothing to save yet: call the Manager first"):
        manager(tmp_path).save_checkpoint()


def test_settings_switch_things_off(tmp_path, cache):
    with config_context(requeue_checkpoint=False, default_loggers={"registry": False}):
        run = manager(tmp_path, trainer=make_trainer(tmp_path, logger=False))
        run()
    assert not (run.run_dir / "sidecar.json").exists()
    assert not (run.run_dir / "checkpoints" / "last.ckpt").exists()


def test_validate_and_test_prepare_for_themselves(tmp_path, cache):
    class Both(Data):
        def val_dataloader(self):
            return self.train_dataloader()

        test_dataloader = predict_dataloader = val_dataloader

    class Judged(Model):
        def validation_step(self, batch, batch_idx):
            self.log("val", self.layer(batch).mean())

        test_step = validation_step

        def predict_step(self, batch, batch_idx):
            return self.layer(batch)

    run = Manager(trainer=make_trainer(tmp_path), module=Judged(), data=Both())
    assert "val" in run.validate()[0]
    assert "val" in run.test()[0]
    assert len(run.predict()) == 3


def test_a_signal_stops_a_prediction_too(tmp_path, cache):
    class Judged(Model):
        seen = 0

        def predict_step(self, batch, batch_idx):
            self.seen += 1
            os.kill(os.getpid(), signal.SIGTERM)
            return self.layer(batch)

    class Rows(Data):
        def predict_dataloader(self):
            return self.train_dataloader()

    run = Manager(trainer=make_trainer(tmp_path), module=Judged(), data=Rows())
    with pytest.raises(Stopped, match="was preempted"):
        run.predict()
    assert run.module.seen == 1


def test_what_is_given_is_built_once(tmp_path, cache):
    """Building, compiling, callbacks, hyper-parameters and training see one object."""
    made = []

    class Compiled(Model):
        def compile(self):
            made.append(self)

    class Seen(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            made.append(pl_module)

    def factory():
        made.append(Compiled(width=5))
        return made[-1]

    trainer = make_trainer(tmp_path, callbacks=[Seen()])
    run = manager(tmp_path, trainer=trainer, module=factory, compile=True)
    early, data = run.instantiated_module, run.instantiated_data
    run()
    assert made == [early, early, early]
    assert run.instantiated_module is run.module is early
    assert run.instantiated_data is run.data is data is trainer.datamodule
    assert sidecar(run)["hparams"]["width"] == 5


BORING = {"_target_": "lightning.pytorch.demos.boring_classes.BoringModel"}


@pytest.mark.parametrize(
    "form",
    [
        OrderedDict(BORING),
        MappingProxyType(BORING),
        OmegaConf.create(BORING),
        functools.partial(BoringModel),
    ],
    ids=lambda form: type(form).__name__,
)
def test_any_form_is_built_after_seeding(form):
    built = Manager(lambda: pl.Trainer(accelerator="cpu", logger=False), form, seed=1)
    torch.manual_seed(1)
    expected = BoringModel()
    torch.manual_seed(2)
    found = built.instantiated_module
    assert all(map(torch.equal, expected.parameters(), found.parameters()))


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"trainer": 3}, TypeError, "`trainer` must be a Trainer, a mapping with `_target_` or"),
        (
            {"module": {"width": 3}},
            TypeError,
            r"`module` is a mapping without `_target_`.*\['width'",
        ),
        ({"data": "cifar"}, TypeError, "`data` must be a LightningDataModule.*got str"),
        (
            {"ckpt_path": "/no/such.ckpt"},
            FileNotFoundError,
            "no checkpoint at `ckpt_path` '/no/such",
        ),
        ({"run_id": "a/b"}, ValueError, "`run_id` must be at most 128 letters"),
    ],
)
def test_wrong_arguments_are_named_at_once(arguments, kind, message):
    given = {"trainer": OmegaConf.create({"_target_": "x"}), "module": Model, **arguments}
    with pytest.raises(kind, match=message):
        Manager(**given)


def test_a_factory_that_makes_something_else_is_named(tmp_path):
    with pytest.raises(TypeError, match="`module` made a Linear, expected a LightningModule"):
        Manager(make_trainer(tmp_path), lambda: torch.nn.Linear(1, 1))()
