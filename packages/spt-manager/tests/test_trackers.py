"""Experiment trackers, each for real: one identity per run directory, no duplicates on resume."""

import json
import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import lightning as pl
import pytest
import wandb
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from spt_manager import Manager, TrackioLogger, config_context
from spt_manager import set as set_config
from spt_manager.trackers.connect import read_identity

sys.path.insert(0, str(Path(__file__).parent))
from forked import Forked

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*dataloader.*", "ignore::DeprecationWarning", "ignore::ResourceWarning"
)

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.chdir(tmp_path)
    quiet = {"env_dump": False, "trainer_info": False}
    with config_context(cache_dir=str(tmp_path / "cache"), default_callbacks=quiet):
        yield tmp_path / "cache"
    assert [path.name for path in tmp_path.iterdir()] == ["cache"], "nothing lies elsewhere"


def fit(logger, epochs, run_id="mine", fail_at=None):
    from managed_parts import Data, Model

    class Failing(pl.Callback):
        def on_train_batch_start(self, trainer, *args):
            if trainer.global_step == fail_at:
                raise RuntimeError("planned failure")

    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=logger,
        callbacks=[Failing()],
    )
    module = {"_target_": "managed_parts.Model", "width": 3, "api_key": "abc123"}
    assert Model
    run = Manager(trainer=trainer, module=module, data=Data(), seed=0, run_id=run_id)
    with pytest.raises(RuntimeError, match="planned") if fail_at is not None else nullcontext():
        run()
    return run


def written(run_dir, until):
    """What W&B's own process has written; it may come a moment after ``finish``."""
    end = time.monotonic() + 30
    while True:
        binary = b"".join(path.read_bytes() for path in run_dir.rglob("*.wandb"))
        if until in binary or time.monotonic() > end:
            return binary
        time.sleep(0.1)


def test_wandb_offline_goes_on_under_one_id(cache, monkeypatch):
    monkeypatch.setenv("WANDB_DATA_DIR", str(cache / "staging"))
    Path("wandb_resume.json").write_text('{"id": "stranger"}')  # nothing here is ours to read
    first = fit(WandbLogger(project="p", offline=True), 1)
    Path("wandb_resume.json").unlink()
    again = fit(WandbLogger(project="p", offline=True), 2)
    other = fit(WandbLogger(project="p", offline=True), 1, run_id="other")
    assert first.run_dir == again.run_dir
    identity = read_identity(first.run_dir / "wandb_resume.json")
    assert identity["id"] != "stranger"
    folders = sorted(path.name for path in (first.run_dir / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    assert all(
        f"-{identity['id']}" in name for name in folders
    )  # within a second W&B adds a number
    assert read_identity(other.run_dir / "wandb_resume.json")["id"] != identity["id"]
    again.validate()  # after the end, offline too
    again.save_checkpoint(upload_wandb=True, verbose=False)  # `wandb sync` sends it later
    binary = written(first.run_dir, until=b"requeue_checkpoint")
    assert b"module.width" in binary
    assert b"abc123" not in binary
    assert b"requeue_checkpoint" in binary


def test_offline_where_the_client_was_set_up_before(monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    wandb.teardown()
    wandb.setup()  # reads the environment, once
    run = fit(WandbLogger(project="p", offline=True), 1)
    assert list((run.run_dir / "wandb").glob("offline-run-*"))


def test_another_project_is_another_run():
    fit(WandbLogger(project="p", offline=True), 1)
    run = fit(WandbLogger(project="q", offline=True), 2)
    names = {path.name.rsplit("-", 1)[1] for path in (run.run_dir / "wandb").glob("offline-run-*")}
    assert len(names) == 2
    assert read_identity(run.run_dir / "wandb_resume.json")["project"] == "q"


def test_tensorboard_shows_each_step_once():
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = fit(TensorBoardLogger("logs"), 3, fail_at=3)
    fit(TensorBoardLogger("logs"), 3)
    events = EventAccumulator(str(run.run_dir / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("fit/loss")] == [0, 1, 2, 3, 4, 5]
    assert len(list((run.run_dir / "tensorboard").glob("events*"))) >= 2


def test_trackio_goes_on_under_one_name(cache, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(cache / "trackio"))
    import trackio.sqlite_storage as storage

    monkeypatch.setattr(storage, "TRACKIO_DIR", cache / "trackio")
    (cache / "trackio").mkdir(parents=True)
    first = fit(TrackioLogger("p", group="g"), 1)
    fit(TrackioLogger("p", group="g"), 2)
    assert storage.SQLiteStorage.get_runs("p") == ["mine"]
    rows = storage.SQLiteStorage.get_logs("p", "mine")
    assert sorted(row["step"] for row in rows if "fit/loss" in row) == [0, 1, 2, 3]
    identity = {"project": "p", "name": "mine", "group": "g"}
    assert read_identity(first.run_dir / "trackio_resume.json") == identity
    with pytest.raises(ValueError, match="either `server_url` or `space_id`"):
        TrackioLogger("p", server_url="http://x", space_id="a/b")


def swanlab_attempt(cache, epochs):
    from swanlab.integration.pytorch_lightning import SwanLabLogger

    set_config(cache_dir=cache)
    fit(SwanLabLogger(project="p", mode="offline"), epochs)


def test_swanlab_goes_on_under_one_id(cache):
    cache.mkdir()
    for epochs in (1, 2):
        arguments = ("test_trackers", "swanlab_attempt", str(cache), epochs)
        environ = {**os.environ, "HOME": str(cache)}
        done = Forked(cache / f"log-{epochs}", *arguments, environ=environ)
        assert done.end() == 0, done.output()
    (sidecar,) = cache.rglob("sidecar.json")
    identity = read_identity(sidecar.with_name("swanlab_resume.json"))
    folder = sidecar.with_name("swanlog")
    attempts = [path for path in folder.iterdir() if path.name.startswith("run-")]
    assert attempts
    assert all(identity["id"] in path.name for path in attempts)


def test_an_unreadable_identity_begins_a_new_run(tmp_path, cache):
    cache.mkdir()
    path = cache / "wandb_resume.json"
    path.write_text('{"id"')
    assert read_identity(path) is None
    path.write_text(json.dumps({"id": "a"}))
    assert read_identity(path) == {"id": "a"}


def test_two_loggers_of_one_kind_are_refused():
    loggers = [WandbLogger(project="p", offline=True), WandbLogger(project="q", offline=True)]
    with pytest.raises(RuntimeError, match="A run has one WandbLogger, got 2"):
        fit(loggers, 1)
