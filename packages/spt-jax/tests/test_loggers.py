"""Trackers by their own clients, for real: one identity per run directory, also after a failure."""

import json
import sys

import pytest
import spt_jax as spj

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "cache"
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}, "nothing lies elsewhere"


class FailAt(spj.Callback):
    def __init__(self, step):
        self.step = step

    def on_boundary(self, trainer, module):
        if trainer.global_step == self.step and trainer.training:
            raise RuntimeError("planned failure")


def fit(small, place, logger, epochs=1, fail_at=None):
    """Three steps an epoch, each logged; a failing run saves none of its first epoch's rows."""
    trainer = spj.Trainer(
        max_epochs=epochs,
        callbacks=[FailAt(fail_at)],
        logger=logger,
        log_every_n_steps=1,
        progress=False,
    )
    module = small.linear(hparams={"width": {"inner": 3}})
    manager = spj.Manager(trainer, module, small.loaders()[0], cache_dir=place, run_id="mine")
    if fail_at is None:
        manager()
    else:
        with pytest.raises(RuntimeError, match="planned failure"):
            manager()
    return manager.run_dir


def identity(run_dir, name):
    return json.loads((run_dir / f"{name}_resume.json").read_text())


def test_wandb_offline(small, place, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_DATA_DIR", str(place / "staging"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = {"project": "p", "mode": "offline"}
    first = fit(small, place, spj.loggers.WandbLogger(**logger), fail_at=2)
    assert fit(small, place, spj.loggers.WandbLogger(**logger), epochs=2) == first
    folders = sorted(path.name for path in (first / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    assert all(f"-{identity(first, 'wandb')['id']}" in name for name in folders)
    binary = b"".join(path.read_bytes() for path in first.rglob("*.wandb"))
    assert b"width.inner" in binary
    assert b"fit/loss_step" in binary


def test_trackio(small, place, monkeypatch):
    pytest.importorskip("trackio")
    import trackio.sqlite_storage as storage

    monkeypatch.setattr(storage, "TRACKIO_DIR", place / "trackio")
    (place / "trackio").mkdir(parents=True)
    first = fit(small, place, spj.loggers.TrackioLogger(project="p"))
    fit(small, place, spj.loggers.TrackioLogger(project="p"), epochs=2)
    assert storage.SQLiteStorage.get_runs("p") == ["mine"]
    rows = storage.SQLiteStorage.get_logs("p", "mine")
    assert [row["step"] for row in rows if "fit/loss_step" in row] == [1, 2, 3, 4, 5, 6]
    assert identity(first, "trackio") == {"name": "mine"}


def test_swanlab_offline(small, place, monkeypatch):
    pytest.importorskip("swanlab")
    monkeypatch.setenv("HOME", str(place))
    place.mkdir()
    for epochs in (1, 2):
        logger = spj.loggers.SwanLabLogger(project="p", mode="offline")
        run_dir = fit(small, place, logger, epochs)
    attempts = [path for path in (run_dir / "swanlog").iterdir() if path.name.startswith("run-")]
    assert attempts
    assert all(identity(run_dir, "swanlab")["id"] in path.name for path in attempts)


def test_tensorboard_shows_each_step_once(small, place):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_dir = fit(small, place, spj.loggers.TensorBoardLogger(), fail_at=2)
    fit(small, place, spj.loggers.TensorBoardLogger(), epochs=2)
    assert len(list((run_dir / "tensorboard").iterdir())) == 2
    events = EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("fit/loss_step")] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in events.Scalars("fit/loss")] == [3, 6]


def test_mistakes_are_named(small, place, monkeypatch):
    (place / "x").mkdir(parents=True)
    (place / "x" / "wandb_resume.json").write_text('{"id"')
    logger = spj.loggers.WandbLogger(id="own")
    logger.attach(place / "x", "run")
    assert identity(place / "x", "wandb") == {"id": "own"}
    with pytest.raises(ValueError, match="needs a `log_dir` where there is no Manager"):
        spj.loggers.TensorBoardLogger().log_metrics({"a": 1.0}, 0)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'spt-jax\[wandb\]'"):
        logger.log_metrics({"a": 1.0}, 0)
