"""Callbacks that report on a run and tidy up after it."""

import json
import os
import pickle
import subprocess
import time

import lightning as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger
from loguru import logger as loguru_logger
from spt_callbacks import (
    CleanUpCallback,
    EnvironmentDumpCallback,
    HardwareMonitor,
    LoggingCallback,
    LogUnusedParametersOnce,
    ModuleRegistryCallback,
    ModuleSummary,
    OnlineKNN,
    OnlineWriter,
    SLURMInfo,
    TrainerInfo,
    default_callbacks,
    log,
    log_dict,
)
from spt_callbacks.system.clean_up import is_safe_root
from spt_callbacks.system.environment import git_facts
from spt_callbacks.system.module_summary import part_sizes
from torch import nn
from torch.utils.data import DataLoader

pytestmark = pytest.mark.filterwarnings("ignore:.*dataloader.*")


class Memory(Logger):
    """A logger that remembers."""

    def __init__(self):
        super().__init__()
        self.hparams, self.rows = {}, []

    name = version = "memory"

    def log_hyperparams(self, params, *args, **kwargs):
        self.hparams.update(params)

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, dict(metrics)))


class Plain(pl.LightningModule):
    def __init__(self, manual=False):
        super().__init__()
        self.used = nn.Linear(4, 2)
        self.unused = nn.Linear(4, 2)
        self.automatic_optimization = not manual

    def training_step(self, batch, batch_idx):
        loss = self.used(batch).square().mean()
        if not self.automatic_optimization:
            optimizer = self.optimizers()
            self.manual_backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        return {"loss": loss}

    def validation_step(self, batch, batch_idx):
        return {"embedding": self.used(batch)}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def messages():
    lines = []
    sink = loguru_logger.add(lines.append, level="INFO", format="{level} {message}")
    yield lines
    loguru_logger.remove(sink)


def train(tmp_path, module, callbacks, *, logger=False, val=False, ckpt_path=None, **settings):
    trainer = pl.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=logger,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        **{"max_epochs": 1, "enable_checkpointing": False, "num_sanity_val_steps": 0, **settings},
    )
    data = DataLoader(torch.ones(8, 4), batch_size=2)
    trainer.fit(module, data, data if val else None, ckpt_path=ckpt_path)
    return trainer


@pytest.mark.parametrize("manual", [False, True])
def test_parameters_without_gradient_are_named_once(tmp_path, messages, manual):
    callback = LogUnusedParametersOnce()
    module = Plain(manual)
    trainer = train(tmp_path, module, [callback], max_epochs=2)
    assert callback.unused == ["unused.bias", "unused.weight"]
    assert sum("got no gradient" in line for line in messages) == 1
    assert not module.used.weight._post_accumulate_grad_hooks
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    resumed = LogUnusedParametersOnce()  # a resumed run checks its own first batch
    train(tmp_path, Plain(manual), [resumed], ckpt_path=tmp_path / "a.ckpt", max_epochs=3)
    assert resumed.unused == ["unused.bias", "unused.weight"]


def test_sizes_of_parts_by_hand():
    shared = nn.Linear(3, 3, bias=False)
    module = nn.ModuleDict(
        {"a": nn.Sequential(shared, nn.BatchNorm1d(3)), "b": shared, "c": nn.LazyLinear(2)}
    )
    module["a"][1].weight.requires_grad_(False)
    sizes = {size.name: size for size in part_sizes(module)}
    whole = sizes[""]
    assert (whole.trainable, whole.frozen, whole.uninitialised, whole.buffers) == (12, 3, 2, 7)
    assert (sizes["a"].trainable, sizes["a"].frozen) == (12, 3)
    assert sizes["a.0"].trainable == 9
    assert "a.0" not in {size.name for size in part_sizes(module, max_depth=1)}


def test_tables_name_what_matters(tmp_path, capsys):
    train(tmp_path, Plain(), [ModuleSummary(), TrainerInfo()], accumulate_grad_batches=2)
    printed = capsys.readouterr().out
    for expected in ("used", "20", "accumulated batches", "ModuleSummary", "SingleDeviceStrategy"):
        assert expected in printed
    assert "\\n" not in printed


def test_metrics_are_printed_after_each_validation(plain, loaders, make_trainer, capsys):
    knn = OnlineKNN(queue_length=9)
    make_trainer([knn, LoggingCallback()], max_epochs=2).fit(plain(), *loaders)
    lines = capsys.readouterr().out.splitlines()
    assert [line.strip() for line in lines if line.startswith("epoch")] == [
        "epoch 1/2, step 6",
        "epoch 2/2, step 12",
    ]
    assert sum("eval/knn_acc" in line for line in lines) == 2


def test_a_datamodule_gets_the_trainer_before_its_loaders_are_asked_for(tmp_path):
    seen = []

    class Data(pl.LightningDataModule):
        def set_pl_trainer(self, trainer):
            seen.append(trainer)

        def train_dataloader(self):
            assert seen == [self.trainer]
            return DataLoader(torch.randn(4, 4))

    trainer = pl.Trainer(
        max_steps=1, accelerator="cpu", callbacks=[TrainerInfo()], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(Plain(), datamodule=Data())
    assert seen == [trainer]


def test_slurm_ids_reach_the_loggers_and_only_in_a_job(tmp_path, monkeypatch, capsys):
    for name in [n for n in os.environ if n.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    memory = Memory()
    train(tmp_path, Plain(), [SLURMInfo()], logger=memory)
    assert not any(name.startswith("slurm") for name in memory.hparams)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")  # else Lightning asks for srun
    train(tmp_path, Plain(), [SLURMInfo()], logger=memory)
    assert memory.hparams["slurm.job_id"] == "77"
    assert memory.hparams["slurm.task_id"] == "3"
    assert "SLURM_ARRAY_TASK_ID" in capsys.readouterr().out


def test_the_environment_is_written_without_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("SPT_API_KEY", "hunter2")
    monkeypatch.setenv("CUDA_PROXY", "https://me:hunter2@example.org/")
    monkeypatch.setenv("MY_PASSWORD", "hunter2")
    callback = EnvironmentDumpCallback()
    for _ in range(2):
        train(tmp_path, Plain(), [callback])
    text = (tmp_path / "environment.json").read_text()
    assert "hunter2" not in text
    facts = json.loads(text)
    assert facts["environment_variables"]["SPT_API_KEY"] == "***"
    assert "MY_PASSWORD" not in facts["environment_variables"]
    assert facts["packages"]["key_packages"]["torch"] == torch.__version__.split("+")[0]
    assert (tmp_path / "environment_v1.json").exists()
    assert (tmp_path / "requirements_frozen_v1.txt").read_text().count("==") > 10
    assert not list(tmp_path.glob(".*.tmp"))
    pickle.loads(pickle.dumps(callback))


def test_git_facts_hide_the_token(tmp_path):
    commands = [
        ["init", "-q"],
        ["remote", "add", "origin", "https://user:hunter2@example.org/x.git"],
        ["-c", "user.name=n", "-c", "user.email=e@x", "commit", "-q", "--allow-empty", "-m", "x"],
    ]
    for command in commands:
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    (tmp_path / "new.txt").write_text("")
    facts = git_facts(tmp_path)
    assert facts["remote_url"] == "https://***@example.org/x.git"
    assert facts["uncommitted_changes"] == ["?? new.txt"]
    assert len(facts["commit_hash"]) == 40


def test_an_unwritable_directory_does_not_end_the_run(tmp_path, messages):
    (tmp_path / "environment.json").mkdir()
    (tmp_path / "environment_v1.json").mkdir()
    callback = EnvironmentDumpCallback(filename="environment.json/x/../../file/environment.json")
    (tmp_path / "file").write_text("")
    train(tmp_path, Plain(), [callback])
    assert any("could not write" in line for line in messages)


def test_hardware_samples_are_logged_once_each(tmp_path):
    class Slow(Plain):
        def training_step(self, batch, batch_idx):
            time.sleep(0.05)
            return super().training_step(batch, batch_idx)

    memory, monitor = Memory(), HardwareMonitor(interval_seconds=0.09)
    train(tmp_path, Slow(), [monitor], logger=memory, max_epochs=3, log_every_n_steps=1)
    samples = [(s, r) for s, r in memory.rows if any(k.startswith("hardware/") for k in r)]
    assert 2 <= len(samples) < 12  # of 12 steps: an old sample is not logged again
    keys = set(samples[-1][1])
    assert {"hardware/cpu_percent", "hardware/ram_used_gb", "hardware/net_recv_mb_s"} <= keys
    assert 0 < samples[-1][1]["hardware/ram_used_pct"] <= 100
    assert monitor._thread is None
    pickle.loads(pickle.dumps(monitor))
    with pytest.raises(ValueError, match=r"`interval_seconds` must be > 0, got 0"):
        HardwareMonitor(0)


class Says(pl.Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        log("inside", torch.tensor(float(batch_idx)), on_step=True)

    def on_validation_epoch_end(self, trainer, pl_module):
        log_dict({"at_end": 7.0})

    def on_validation_end(self, trainer, pl_module):
        log("after", torch.tensor(5.0))

    def on_fit_end(self, trainer, pl_module):
        log("last", 9)


def test_values_from_anywhere_arrive(tmp_path):
    memory = Memory()
    callbacks = [Says(), ModuleRegistryCallback()]
    trainer = train(tmp_path, Plain(), callbacks, logger=memory, val=True, log_every_n_steps=1)
    merged = {k: (s, v) for s, row in memory.rows for k, v in row.items()}
    assert float(trainer.callback_metrics["at_end"]) == 7.0
    assert float(merged["inside"][1]) == 3.0
    assert merged["after"] == (4, 5.0)
    assert merged["last"] == (4, 9.0)
    with pytest.raises(RuntimeError, match=r"No module runs under the name 'default'"):
        log("too_late", 1.0)


def test_a_wrong_use_of_log_is_not_hidden(tmp_path):
    class Wrong(pl.Callback):
        def on_train_batch_end(self, *args):
            log("x/dataloader_idx_0", 1.0)

    with pytest.raises(Exception, match=r"should not contain information about `dataloader_idx`"):
        train(tmp_path, Plain(), [Wrong(), ModuleRegistryCallback()])


def run_with_leftovers(run_dir, **choices):
    """A run that leaves a checkpoint, logs, artefacts, and files of SLURM and Hydra."""
    run_dir.mkdir(exist_ok=True)
    (run_dir / ".hydra").mkdir()
    (run_dir / ".hydra" / "config.yaml").write_text("a: 1")
    (run_dir / "slurm-1.out").write_text("text")
    (run_dir / "mine.txt").write_text("precious")
    cleaner = CleanUpCallback(**choices)
    callbacks = [
        cleaner,
        EnvironmentDumpCallback(),
        OnlineWriter("loss", "rows", "train"),
        ModelCheckpoint(run_dir / "checkpoints", filename="m"),
    ]
    train(run_dir, Plain(), callbacks, logger=CSVLogger(run_dir), enable_checkpointing=True)
    return cleaner


def names(run_dir):
    return {p.name for p in run_dir.iterdir()}


def test_by_default_the_run_keeps_what_it_made(tmp_path):
    run_with_leftovers(tmp_path / "run")
    assert names(tmp_path / "run") == {"mine.txt", "checkpoints", "lightning_logs", "rows"}


def test_everything_else_goes_when_asked(tmp_path):
    other = tmp_path / "run" / "checkpoints" / "of_another_run.ckpt"
    other.parent.mkdir(parents=True)
    other.write_text("")
    choices = {"keep_checkpoints": False, "keep_logs": False, "keep_callback_artifacts": False}
    run_with_leftovers(tmp_path / "run", **choices)
    assert names(tmp_path / "run") == {"mine.txt", "checkpoints", "lightning_logs", "rows"}
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == [other]
    assert not list((tmp_path / "run" / "lightning_logs").iterdir())
    assert not list((tmp_path / "run" / "rows").iterdir())


def test_a_dry_run_removes_nothing(tmp_path):
    cleaner = run_with_leftovers(tmp_path / "run", dry_run=True)
    assert {"slurm-1.out", ".hydra", "environment.json"} <= names(tmp_path / "run")
    assert tmp_path / "run" / "slurm-1.out" in cleaner.removed


def test_nothing_outside_the_run_is_removed(tmp_path, messages, monkeypatch):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious.txt").write_text("x")
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "link").symlink_to(outside)
    (run_dir / "step").symlink_to(outside)
    train(run_dir, Plain(), [CleanUpCallback(extra_patterns=["../outside", "link", "step/*"])])
    assert (outside / "precious.txt").exists()
    assert not (run_dir / "link").is_symlink()  # the link itself was the run's
    assert any("it is not inside" in line for line in messages)
    monkeypatch.chdir(run_dir)
    (run_dir / "slurm-2.out").write_text("")
    train(run_dir, Plain(), [CleanUpCallback()])
    assert (run_dir / "slurm-2.out").exists()
    assert not is_safe_root(run_dir.parent)


def test_a_failed_run_keeps_everything(tmp_path):
    class Fails(Plain):
        def training_step(self, batch, batch_idx):
            raise RuntimeError("on purpose")

    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "slurm-1.out").write_text("the reason")
    with pytest.raises(RuntimeError, match="on purpose"):
        train(run_dir, Fails(), [CleanUpCallback()])
    assert (run_dir / "slurm-1.out").exists()


def test_default_callbacks_work_together_and_can_be_left_out(tmp_path):
    callbacks = default_callbacks({"trainer_info": False})
    assert "TrainerInfo" not in {type(c).__name__ for c in callbacks}
    trainer = train(tmp_path, Plain(), callbacks, logger=CSVLogger(tmp_path), val=True)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert set(torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"]) == set(
        Plain().state_dict()
    )
    with pytest.raises(ValueError, match=r"Unknown default callbacks \['loging'\]; there are"):
        default_callbacks({"loging": False})
