"""Whole runs of a small network: traces, learning, resume, records, errors."""

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
import spt_jax as spj
from flax import nnx
from spt_registry import open_registry


def arrays(n=40, seed=0):
    """Images of two classes: bright above, bright below."""
    rng = np.random.default_rng(seed)
    images = rng.random((n, 6, 6, 1), dtype=np.float32) * 0.3
    labels = np.arange(n) % 2
    images[labels == 0, :3] += 0.7
    images[labels == 1, 3:] += 0.7
    return {"image": images, "label": labels}


def simclr(transform=True):
    rngs = nnx.Rngs(0)
    return spj.SimCLR(
        spj.backbone.ResNet((1, 1), (4, 8), rngs=rngs, in_channels=1, low_resolution=True),
        embed_dim=8,
        rngs=rngs,
        projector_dims=(8, 4),
        optim={"optimizer": {"type": "adamw", "lr": 1e-2}, "scheduler": "CosineAnnealingLR"},
        transform=spj.augment.two_view_transform(6, (0.8, 1.0)) if transform else None,
    )


def callbacks():
    return [
        spj.OnlineProbe("probe", nnx.Linear(8, 2, rngs=nnx.Rngs(1)), optim={"lr": 0.05}),
        spj.OnlineKNN(num_classes=2, k=5, bank_size=50),
        spj.RankMe(queue_length=30),
    ]


def loaders():
    return (
        spj.ArrayLoader(arrays(), 16, shuffle=True),
        spj.ArrayLoader(arrays(22, seed=1), 16),
    )


def run(tmp_path, epochs, run_id="mine", module=None):
    trainer = spj.Trainer(max_epochs=epochs, callbacks=callbacks(), log_every_n_steps=3)
    manager = spj.Manager(
        trainer, module or simclr(), *loaders(), cache_dir=tmp_path, run_id=run_id
    )
    manager()
    return manager


def leaves(manager):
    return jax.device_get(jax.tree.leaves(nnx.state(manager.module)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole"), 15)


def test_each_step_is_traced_once(whole):
    assert whole.trainer.engine.traces == {"train": 1, "evaluate": 1}


def test_a_run_learns_and_is_recorded(whole):
    metrics = whole.trainer.callback_metrics
    assert metrics["eval/knn_acc"] > 0.8
    assert metrics["eval/probe_acc"] > 0.8
    assert 1 < metrics["rankme"] <= 8
    assert whole.trainer.global_step == 30  # 40 rows: two whole batches an epoch
    record = open_registry(cache_dir=whole.cache_dir)["mine"]
    assert record.status == "completed"
    assert "jax" in record.tags
    assert record.hparams["method"] == "simclr"
    history = open_registry(cache_dir=whole.cache_dir).history("mine")
    assert history["fit/loss"].notna().sum() == 30
    assert history["eval/knn_acc"].notna().sum() == 15


def test_a_run_cut_in_mid_epoch_goes_on_bitwise(tmp_path, whole):
    trainer = spj.Trainer(max_epochs=15, max_steps=3, callbacks=callbacks(), log_every_n_steps=3)
    module = simclr()
    module.settings = dataclasses.replace(module.settings, optim=whole.module.settings.optim)
    tx = {"optim": spj.create_optimizer(module.settings.optim, total_steps=30)}
    module.settings = dataclasses.replace(module.settings, **tx)
    first = spj.Manager(
        trainer, module, *loaders(), cache_dir=tmp_path, run_id="cut", save_every_n_epochs=5
    )
    first()
    assert (trainer.current_epoch, trainer.epoch_batches, trainer.global_step) == (1, 1, 3)
    rest = simclr()
    rest.settings = dataclasses.replace(rest.settings, **tx)
    again = run(tmp_path, 15, run_id="cut", module=rest)
    assert again.trainer.global_step == 30
    for a, b in zip(leaves(again), leaves(whole), strict=True):
        assert np.array_equal(a, b)


def test_a_finished_run_gives_its_weights_again(tmp_path):
    first = run(tmp_path, 1)
    again = run(tmp_path, 1)
    assert again.trainer.global_step == 2
    for a, b in zip(leaves(first), leaves(again), strict=True):
        assert np.array_equal(a, b)


def test_random_state_of_the_module_is_saved(tmp_path):
    def forward(self, batch, stage):
        embedding = self.drop(self.layer(batch["image"].reshape(len(batch["image"]), -1)))
        return {"embedding": embedding, "loss": (embedding**2).mean()}

    def make():
        return spj.Module(
            forward=forward,
            layer=nnx.Linear(36, 4, rngs=nnx.Rngs(0)),
            drop=nnx.Dropout(0.5, rngs=nnx.Rngs(1)),
        )

    def fit(folder, epochs, module):
        trainer = spj.Trainer(max_epochs=epochs, progress=False)
        spj.Manager(trainer, module, loaders()[0], cache_dir=folder, run_id="d")()
        return np.concatenate(
            [np.ravel(leaf) for leaf in jax.tree.leaves(nnx.state(module, nnx.Param))]
        )

    expected = fit(tmp_path / "a", 3, make())
    fit(tmp_path / "b", 1, make())
    assert np.array_equal(fit(tmp_path / "b", 3, make()), expected)


def test_stopping_and_going_on(tmp_path, whole):
    first = spj.Trainer(max_epochs=15, callbacks=callbacks(), log_every_n_steps=3)
    manager = spj.Manager(first, simclr(), *loaders(), cache_dir=tmp_path, run_id="mine")
    ends = []

    def fail_at_two(trainer):
        ends.append(trainer.current_epoch)
        if trainer.current_epoch == 3:
            raise RuntimeError("planned failure")

    first.on_epoch_end.append(fail_at_two)
    with pytest.raises(RuntimeError, match="planned failure"):
        manager()
    state = json.loads((manager.run_dir / "sidecar.json").read_text())
    assert state["status"] == "failed"
    assert "planned failure" in state["error"]
    again = run(tmp_path, 15)
    assert again.run_dir == manager.run_dir
    assert again.trainer.global_step == 30
    for a, b in zip(leaves(again), leaves(whole), strict=True):
        assert np.array_equal(a, b)


def test_a_corrupt_checkpoint_is_set_aside(tmp_path):
    first = run(tmp_path, 2)
    last = first.run_dir / "checkpoints" / "last.msgpack"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 0xFF
    last.write_bytes(bytes(content))
    again = run(tmp_path, 3)
    assert again.trainer.current_epoch == 3
    names = [path.name for path in last.parent.iterdir()]
    assert any(".corrupt-" in name for name in names)


def test_a_checkpoint_of_another_module_is_named(tmp_path):
    spj.checkpoint.save(tmp_path / "x.msgpack", {"a": np.ones(3)}, epoch=1)
    with pytest.raises(ValueError, match="1 arrays of other shapes than the 2 of this module"):
        spj.checkpoint.load(tmp_path / "x.msgpack", {"a": np.ones(3), "b": np.ones(1)})


def test_supervised_and_no_manager():
    rngs = nnx.Rngs(0)
    module = spj.Module(
        forward=spj.forward.supervised,
        backbone=spj.backbone.ResNet((1,), (4,), rngs=rngs, in_channels=1, low_resolution=True),
        classifier=nnx.Linear(4, 2, rngs=rngs),
    )
    trainer = spj.Trainer(max_epochs=1, progress=False, max_steps=1)
    trainer.fit(module, *loaders())
    assert trainer.global_step == 1
    assert np.isfinite(trainer.callback_metrics["fit/loss"])


def test_mistakes_are_named(tmp_path):
    train, _ = loaders()

    def without_loss(self, batch, stage):
        return {"embedding": batch["image"].mean((1, 2))}

    def bare(self, batch, stage):
        return batch["image"].mean()

    def fit(forward, *callbacks):
        spj.Trainer(callbacks=callbacks).fit(spj.Module(forward=forward), train)

    with pytest.raises(KeyError, match=r"without_loss must return 'loss'.*\['embedding'\]"):
        fit(without_loss)
    with pytest.raises(TypeError, match="bare must return a dict"):
        fit(bare)
    with pytest.raises(ValueError, match="SimCLR trains on 2 views, got 1"):
        spj.Trainer().fit(simclr(transform=False), train)

    def no_embedding(self, batch, stage):
        return {"loss": batch["image"].mean(), "label": batch["label"]}

    with pytest.raises(
        KeyError, match=r"RankMe 'rankme' needs \['embedding'\]; .*\['label', 'loss'\]"
    ):
        fit(no_embedding, spj.RankMe())
    with pytest.raises(TypeError, match="a generator, which can be used only once"):
        spj.Trainer().fit(simclr(), (batch for batch in train))
    with pytest.raises(ValueError, match="training loader gave no batch"):
        spj.Trainer().fit(simclr(), [])
    with pytest.raises(ValueError, match="`max_epochs` and `log_every_n_steps` must be >= 1"):
        spj.Trainer(max_epochs=0)
    with pytest.raises(ValueError, match="`forward` must be a function"):
        spj.Module(forward=3)
    with pytest.raises(ValueError, match="`save_every_n_epochs` must be >= 1"):
        spj.Manager(spj.Trainer(), simclr(), train, save_every_n_epochs=0)


def test_importing_touches_no_device_and_no_torch():
    program = (
        "import sys, spt_jax\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge._backends, xla_bridge._backends\n"
        "assert not {'torch', 'lightning'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
