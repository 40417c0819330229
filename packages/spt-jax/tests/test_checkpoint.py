"""Checkpoints: whole or absent, the newest kept, corrupt ones set aside; loaders that go on."""

import csv
import itertools
import json
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import spt_jax as spj
from flax import nnx
from loguru import logger
from spt_jax.checkpoint import Checkpoints, CorruptCheckpointError
from spt_jax.loader_state import decoded, encoded
from spt_jax.manager import warn_if_inexact


def states():
    import jax

    return {"a": np.arange(6.0, dtype=np.float32).reshape(2, 3), "key": jax.random.key(3)}


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # Orbax's broken reads
def test_the_newest_are_kept_and_corrupt_ones_set_aside(tmp_path, small):
    folder = Checkpoints(tmp_path / "c", keep=3)
    for step in (1, 2, 3, 4):
        state = states()
        state["a"] = state["a"] + step
        folder.save(step, state, {"step": step})
    folder.wait()
    assert folder.steps() == [2, 3, 4]
    found, record = folder.restore(states())
    assert record == {"step": 4}
    assert small.same(found, {**states(), "a": states()["a"] + 4})
    folder.close()
    for path in sorted((tmp_path / "c" / "4" / "state").rglob("d/*")):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(bytes(content))
    for path in (tmp_path / "c" / "3" / "record").iterdir():
        path.unlink()
    again = Checkpoints(tmp_path / "c")
    found, record = again.restore(states())
    assert record == {"step": 2}
    again.close()
    aside = sorted(path.name.split("-")[0] for path in (tmp_path / "c.corrupt").iterdir())
    assert aside == ["3", "4"]
    assert Checkpoints(tmp_path / "none").restore(states()) is None


def test_another_structure_is_named(tmp_path):
    folder = Checkpoints(tmp_path / "c")
    folder.save(1, states(), {})
    folder.wait()
    other = {"a": np.zeros((2, 2), np.float32), "b": np.zeros(1)}
    with pytest.raises(
        ValueError, match=r"lacks \['b'\], has \['key'\] besides.*\[2, 3\], \[2, 2\]"
    ):
        folder.restore(other)
    folder.close()


def test_nodes_are_saved_and_read_in_place(tmp_path, small):
    def make(seed):
        rngs = nnx.Rngs(seed)
        return nnx.Sequential(nnx.Linear(3, 2, rngs=rngs), nnx.Dropout(0.5, rngs=rngs))

    first, second = make(0), make(1)
    spj.checkpoint.save(tmp_path / "x", step=7, module=first)
    assert spj.checkpoint.load(tmp_path / "x", module=second) == 7
    assert small.same(first, second)
    other = nnx.Sequential(nnx.Linear(3, 2, use_bias=False, rngs=nnx.Rngs(2)))
    with pytest.raises(ValueError, match="belongs to another module"):
        spj.checkpoint.load(tmp_path / "x", module=other)
    spj.checkpoint.load(tmp_path / "x", strict=False, module=other)
    assert np.array_equal(other.layers[0].kernel[...], first.layers[0].kernel[...])


def fitted(small, *callbacks, module=None, epochs=1, **where):
    """A run over 3 batches an epoch without a Manager."""
    module = small.linear() if module is None else module
    trainer = spj.Trainer(max_epochs=epochs, callbacks=callbacks, progress=False)
    trainer.fit(module, small.loaders()[0], **where)
    return trainer, module


def test_another_runs_checkpoints_are_set_aside(tmp_path, small):
    def run(rate, epochs, **where):
        module = small.linear(optim={"type": "sgd", "lr": rate})
        saving = spj.checkpoint.Checkpoint(tmp_path / "c", 1)
        return fitted(small, saving, module=module, epochs=epochs, **where)

    first = run(0.1, 3)
    second = run(0.5, 2)
    assert Checkpoints(tmp_path / "c").steps() == [3, 6]
    aside = sorted(path.name.split("-")[0] for path in (tmp_path / "c.other").iterdir())
    assert aside == ["6", "9"]
    again = run(
        0.5, 2, resume_from=tmp_path / "c"
    )  # nothing is left to do, and nothing to set aside
    assert again[0].global_step == 6
    assert small.same(again[1], second[1])
    assert not small.same(again[1], first[1])
    assert Checkpoints(tmp_path / "c").steps() == [3, 6]


def test_a_step_that_cannot_be_kept_is_refused(tmp_path):
    folder = Checkpoints(tmp_path / "c")
    folder.save(4, states(), {})
    with pytest.raises(ValueError, match=r"Step 2 cannot be saved in .*, which holds \[4\]"):
        folder.save(2, states(), {})
    folder.close()


def test_a_replaced_checkpoint_stays_until_the_new_one_is_written(tmp_path, monkeypatch):
    folder = Checkpoints(tmp_path / "c", keep=1)
    folder.save(1, states(), {"which": "old"})
    folder.wait()
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):  # killed on the way
            folder.replace(1, states(), {})
    assert folder.restore(states())[1] == {"which": "old"}
    folder.replace(1, states(), {"which": "new"})
    folder.wait()
    assert folder.restore(states())[1] == {"which": "new"}
    folder.replace(2, states(), {"which": "next"})
    folder.wait()
    assert folder.restore(states())[1] == {"which": "next"}
    assert len(folder.steps()) == 1
    folder.close()


def test_what_is_no_corruption_leaves_checkpoints_alone(tmp_path, monkeypatch):
    folder = Checkpoints(tmp_path / "c")
    folder.save(1, states(), {})
    folder.wait()

    def out_of_files(*_, **__):
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(folder.manager, "restore", out_of_files)
        with pytest.raises(OSError, match="Too many open files"):
            folder.restore(states())
    assert folder.steps() == [1]
    for path in (tmp_path / "c" / "1" / "record").iterdir():
        path.unlink()
    with pytest.raises(
        CorruptCheckpointError, match=r"None of the checkpoints \[1\] .* begin anew"
    ):
        folder.restore(states())
    assert folder.restore(states()) is None
    folder.close()


def test_a_folder_without_checkpoints_is_refused(tmp_path, small):
    with pytest.raises(FileNotFoundError, match=r"`resume_from` must be .*/none holds none"):
        fitted(small, resume_from=tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="There is no checkpoint at"):
        spj.checkpoint.load(tmp_path / "none", module=small.linear())


@pytest.mark.parametrize("save_optimizer", [True, False])
def test_the_module_of_a_run_is_read(tmp_path, small, save_optimizer):
    saving = spj.checkpoint.Checkpoint(tmp_path / "c", save_optimizer=save_optimizer)
    trained = fitted(small, saving)[1]
    for path in (tmp_path / "c", tmp_path / "c" / "3"):
        module = small.linear()
        assert not small.same(module, trained)
        assert spj.checkpoint.load(path, module=module) == 3
        assert small.same(module, trained)


class Signal(spj.Callback):
    """Asks the process to stop at a hook of the first epoch."""

    def __init__(self, hook):
        self.sent = False
        setattr(self, hook, self.send)

    def send(self, trainer, module, *_):
        if not self.sent:
            self.sent = True
            signal.raise_signal(signal.SIGUSR2)


def preempted_and_continued(folder, small, hook, make):
    """A run of two epochs under the Manager that is stopped in the first one and goes on."""
    stop = Signal(hook)

    def manager():
        callbacks = [make(), stop]
        settings = {"max_epochs": 2, "log_every_n_steps": 1, "progress": False}
        trainer = spj.Trainer(callbacks=callbacks, **settings)
        return spj.Manager(trainer, small.linear(), *small.loaders(), run_dir=folder)

    with pytest.raises(spj.Preempted):
        manager()()
    assert manager()().global_step == 6


class Told(spj.Callback):
    """Logs at the end of each training epoch."""

    def on_train_epoch_end(self, trainer, module):
        trainer.log("own/step", trainer.global_step)


def test_the_end_of_a_training_epoch_is_not_told_twice(tmp_path, small):
    preempted_and_continued(tmp_path / "r", small, "on_validation_epoch_start", Told)
    with (tmp_path / "r" / "metrics.csv").open() as file:
        told = [row["own/step"] for row in csv.DictReader(file) if row["own/step"]]
    assert [float(step) for step in told] == [3.0, 6.0]


def test_half_an_epoch_is_not_written(tmp_path, small):
    def writer():
        return spj.OnlineWriter(["label"], tmp_path / "w", ("train",))

    preempted_and_continued(tmp_path / "r", small, "on_boundary", writer)
    assert [path.name for path in (tmp_path / "w").iterdir()] == ["train_epoch1.npz"]
    assert len(np.load(tmp_path / "w" / "train_epoch1.npz")["label"]) == 40


def test_several_managers_of_one_job_find_their_own_runs(tmp_path, small, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")

    def places():
        monkeypatch.setattr(
            "spt_registry.run.identity._runs", itertools.count()
        )  # a process of its own
        return [spj.Manager(None, None, [], cache_dir=tmp_path)._place() for _ in range(2)]

    first = places()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    again = places()
    assert [place.path for place in first] == [place.path for place in again]
    assert first[0].path != first[1].path
    assert all(place.resumed for place in again)


def test_the_shared_settings_say_where(monkeypatch):
    monkeypatch.setenv("SPT_CACHE_DIR", "/of/the/environment")
    for shared, found in (("/shared", "/shared"), (None, "/of/the/environment")):
        settings = SimpleNamespace(cache_dir=shared)
        module = SimpleNamespace(get_config=lambda settings=settings: settings)
        monkeypatch.setitem(sys.modules, "spt_manager.config", module)
        assert spj.Manager(None, None, []).cache_dir == found


def test_a_place_of_any_kind_is_kept():
    rng = np.random.default_rng(0)
    place = {
        "numbers": [1, 2.5, None, True, np.int64(3)],
        "python": (3, (1, 2), None),
        "numpy": {"rng": rng.bit_generator.state, "order": rng.permutation(5)},
        "bytes": b"\x00\xff",
        0: "int key",
    }
    found = decoded(json.loads(json.dumps(encoded(place))))
    assert np.array_equal(found["numpy"].pop("order"), place["numpy"].pop("order"))
    assert found == place
    assert isinstance(found["python"][1], tuple)
    with pytest.raises(TypeError, match="holds a Generator, which no checkpoint can keep"):
        encoded({"rng": rng})


def test_a_stateful_loader_of_torchdata_goes_on_at_its_batch(tmp_path, small):
    torch = pytest.importorskip("torch")
    loading = pytest.importorskip("torchdata.stateful_dataloader")
    data = small.arrays(40)
    rows = [{name: value[i] for name, value in data.items()} for i in range(40)]
    seen = []

    class Seen(spj.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            seen.append(batch["image"].numpy().copy())

    def fit(**limits):
        torch.manual_seed(len(seen))
        loader = loading.StatefulDataLoader(rows, batch_size=8, shuffle=True)
        trainer = spj.Trainer(callbacks=[Seen()], progress=False, **limits)
        spj.Manager(trainer, small.linear(), loader, run_dir=tmp_path / "r")()

    fit(max_steps=2)
    fit()
    found = np.concatenate(seen).reshape(40, -1)
    assert np.array_equal(
        np.unique(found, axis=0), np.unique(data["image"].reshape(40, -1), axis=0)
    )


def test_a_reason_of_ones_own_ends_a_run_well(tmp_path, small):
    class Plateau(spj.Callback):
        def on_boundary(self, trainer, module):
            trainer.stop("plateau")

    trainer = spj.Trainer(callbacks=[Plateau()], progress=False)
    spj.Manager(trainer, small.linear(), small.loaders()[0], run_dir=tmp_path / "r")()
    assert trainer.stop_reason == "plateau"
    assert json.loads((tmp_path / "r" / "sidecar.json").read_text())["status"] == "completed"


class Unsized:
    """Has the method, as torch's DataLoader over an iterable data set, and no length."""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        raise TypeError("object of type 'Stream' has no len()")

    def __iter__(self):
        return iter(self.batches)


def test_a_loader_that_does_not_know_its_length(small):
    batches = list(small.loaders()[0])
    trainer = spj.Trainer(max_epochs=2, progress=False)
    trainer.fit(small.linear(), Unsized(batches))
    assert trainer.global_step == 6


def test_a_loader_that_may_shuffle_by_itself_is_warned_of(small):
    def told(loader):
        said = []
        sink = logger.add(said.append, format="{message}")
        warn_if_inexact(loader)
        logger.remove(sink)
        return "".join(said)

    assert "The training loader, a Generic, has neither" in told(Generic({}))
    assert not told(small.loaders()[0])
    assert not told([small.arrays(8)])


def test_a_run_that_was_stopped_early_stays_so(tmp_path, small):
    def run(patience):
        stopping = spj.EarlyStopping("fit/loss", "max", patience=patience)
        trainer = spj.Trainer(max_epochs=9, callbacks=[stopping], progress=False)
        module = small.linear(optim={"type": "sgd", "lr": 0.1})
        return spj.Manager(trainer, module, *small.loaders(), run_dir=tmp_path / "r")()

    assert [run(patience).current_epoch for patience in (1, 1, 2)] == [2, 2, 3]
    stopping = spj.EarlyStopping("fit/loss", "max", patience=1)
    module = small.linear(optim={"type": "sgd", "lr": 0.1})
    for _ in range(2):  # a new run begins to count anew
        trainer = spj.Trainer(max_epochs=9, callbacks=[stopping], progress=False)
        trainer.fit(module, *small.loaders())
        assert trainer.current_epoch == 2


class Generic:
    """A loader without a state of its own."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return 5

    def __iter__(self):
        for i in range(5):
            yield {name: value[8 * i : 8 * i + 8] for name, value in self.data.items()}


@pytest.mark.parametrize("stateful", [True, False])
def test_a_run_cut_in_mid_epoch_goes_on_at_its_batch(tmp_path, small, stateful):
    data = small.arrays(40)
    made = []

    def loader():
        found = spj.ArrayLoader(data, 8, shuffle=True) if stateful else Generic(data)
        made.append(found)
        return found

    def fit(folder, **limits):
        trainer = spj.Trainer(max_epochs=3, progress=False, log_every_n_steps=4, **limits)
        module = small.linear(optim={"type": "adamw", "lr": 0.01})
        spj.Manager(trainer, module, loader(), cache_dir=folder, run_id="m")()
        return trainer, module

    whole = fit(tmp_path / "a")
    cut, _ = fit(tmp_path / "b", max_steps=7)
    assert (cut.current_epoch, cut.epoch_batches, cut.global_step) == (1, 2, 7)
    again = fit(tmp_path / "b")
    assert again[0].global_step == 15
    assert small.same(again[1], whole[1])
    assert small.same(again[0].state["opt"], whole[0].state["opt"])


def test_a_failed_run_says_why(tmp_path, small):
    class Fail(spj.Callback):
        def on_train_epoch_end(self, trainer, module):
            raise RuntimeError("planned failure")

    trainer = spj.Trainer(callbacks=[Fail()], progress=False)
    manager = spj.Manager(trainer, small.linear(), small.loaders()[0], run_dir=tmp_path / "r")
    with pytest.raises(RuntimeError, match="planned failure"):
        manager()
    sidecar = json.loads((tmp_path / "r" / "sidecar.json").read_text())
    assert sidecar["status"] == "failed"
    assert trainer.loggers == []
    assert manager.ckpt_path == tmp_path / "r" / "checkpoints"


def test_ctrl_c_is_an_interruption_and_the_run_goes_on(tmp_path, small):
    class Stop(spj.Callback):
        def on_boundary(self, trainer, module):
            if trainer.global_step == 2 and trainer.training:
                raise KeyboardInterrupt("pressed")

    def manager(*callbacks):
        trainer = spj.Trainer(max_epochs=2, callbacks=list(callbacks), progress=False)
        module = small.linear(optim={"type": "adamw", "lr": 0.01})
        return spj.Manager(trainer, module, small.loaders()[0], cache_dir=tmp_path, run_id="c")

    first = manager(Stop())
    with pytest.raises(KeyboardInterrupt, match="pressed"):
        first()
    assert json.loads((first.run_dir / "sidecar.json").read_text())["status"] == "interrupted"
    again = manager()
    assert again().global_step == 6
    assert again.run_dir == first.run_dir
    state = json.loads((again.run_dir / "sidecar.json").read_text())
    assert [attempt["status"] for attempt in state["attempts"]] == ["interrupted", "completed"]


def test_a_manager_may_be_called_twice(tmp_path, small):
    """The second call finds the run finished: nothing is trained and nothing comes twice."""
    trainer = spj.Trainer(max_epochs=2, callbacks=[spj.OnlineKNN(2, k=1)], progress=False)
    manager = spj.Manager(trainer, small.linear(), *small.loaders(), cache_dir=tmp_path, run_id="t")
    manager()
    rows = (manager.run_dir / "metrics.csv").read_text()
    callbacks = list(trainer.callbacks)
    manager()
    assert (trainer.global_step, trainer.callbacks, trainer.loggers) == (6, callbacks, [])
    assert (manager.run_dir / "metrics.csv").read_text() == rows


def test_without_a_place_nothing_is_written(small, monkeypatch, tmp_path):
    monkeypatch.delenv("SPT_CACHE_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    manager = spj.Manager(spj.Trainer(progress=False), small.linear(), small.loaders()[0])
    assert manager().global_step == 3
    assert (manager.run_dir, manager.ckpt_path) == (None, None)
    assert not list(tmp_path.iterdir())


def test_the_command_line_lists_jax_runs(tmp_path, small):
    trainer = spj.Trainer(progress=False)
    spj.Manager(trainer, small.linear(), small.loaders()[0], cache_dir=tmp_path, run_id="seen")()
    command = [
        sys.executable,
        "-c",
        "from spt_registry.cli import main; main()",
        "ls",
        "--cache-dir",
        str(tmp_path),
    ]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert "seen" in shown.stdout, shown.stderr


def test_the_order_depends_on_seed_and_epoch():
    def order(seed, epoch, skip=0):
        loader = spj.ArrayLoader({"x": np.arange(10)}, 4, shuffle=True, seed=seed)
        loader.set_epoch(epoch)
        if skip:
            loader.load_state_dict({"epoch": epoch, "batches": skip})
        return np.concatenate([batch["x"] for batch in loader]).tolist()

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1, skip=1) == order(0, 1)[4:]
    assert sorted(order(3, 0)) == list(range(10))
    unused = spj.ArrayLoader({"x": np.arange(10)}, 4)
    unused.load_state_dict({"epoch": 0, "batches": 3})
    unused.set_epoch(1)  # a place that was never used does not carry over
    assert len(list(unused)) == 3
    assert len(spj.ArrayLoader({"x": np.arange(10)}, 4)) == 3
    with pytest.raises(ValueError, match="`arrays` must have one length"):
        spj.ArrayLoader({"x": np.arange(3), "y": np.arange(2)}, 1)
