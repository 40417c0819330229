"""Checkpoints: whole or absent, the newest kept, corrupt ones set aside; loaders that go on."""

import json
import subprocess
import sys

import numpy as np
import pytest
import spt_jax as spj
from flax import nnx
from spt_jax.checkpoint import Checkpoints


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
