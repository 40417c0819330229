"""Whole runs of a small network: traces, learning, records, metrics, precision, accumulation."""

import collections
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import spt_jax as spj
from flax import nnx
from spt_registry import open_registry

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    trainer = spj.Trainer(max_epochs=10, callbacks=small.callbacks(), log_every_n_steps=2)
    folder = tmp_path_factory.mktemp("whole")
    manager = spj.Manager(trainer, small.simclr(), *small.loaders(), cache_dir=folder, run_id="w")
    manager()
    return manager


def test_each_step_is_traced_once(whole):
    assert whole.trainer.engine.traces == {"train": 1, "evaluate": 1}


def test_a_run_learns_and_is_recorded(whole):
    metrics = whole.trainer.callback_metrics
    assert metrics["eval/knn_acc"] > 0.8
    assert metrics["eval/probe_acc"] > 0.8
    assert 1 < metrics["rankme"] <= 8
    assert 1 <= metrics["lidar"] <= 8
    assert whole.trainer.global_step == 30  # 40 rows: three batches an epoch, the last one filled
    registry = open_registry(cache_dir=whole.cache_dir)
    record = registry["w"]
    assert record.status == "completed"
    assert "jax" in record.tags
    assert record.hparams["method"] == "simclr"
    history = registry.history("w")
    assert history["fit/loss_step"].notna().sum() == 15
    assert history["hparams/lr"].iloc[0] == pytest.approx(
        1e-2 * 0.5 * (1 + np.cos(np.pi / 30)), rel=1e-5
    )
    for name in ("fit/loss", "fit/loss_epoch", "train/probe_loss_epoch", "eval/knn_acc", "rankme"):
        assert history[name].notna().sum() == 10


class Spy:
    """A logger that keeps what it is told."""

    def __init__(self):
        self.rows, self.told = [], []

    def log_hyperparams(self, params):
        self.told.append("hparams")

    def log_metrics(self, metrics, step):
        self.rows.append((step, dict(metrics)))

    def save(self):
        self.told.append("save")

    def finalize(self, status):
        self.told.append(status)

    def after_save_checkpoint(self, checkpoint):
        self.told.append(checkpoint.last_model_path)


def test_scalars_come_over_in_one_transfer_per_window(small, monkeypatch):
    import spt_jax.loops

    fetched = []
    monkeypatch.setattr(
        spt_jax.loops, "fetch", lambda tree: fetched.append(1) or jax.device_get(tree)
    )
    spy = Spy()
    trainer = spj.Trainer(max_epochs=4, logger=spy, log_every_n_steps=6, progress=False)
    trainer.fit(small.linear(), small.loaders()[0])
    assert trainer.global_step == 12
    assert len(fetched) == 2 + 4  # two windows, four epochs
    steps = [(step, row["fit/loss_step"]) for step, row in spy.rows if "fit/loss_step" in row]
    epochs = [row["fit/loss"] for _, row in spy.rows if "fit/loss" in row]
    assert [step for step, _ in steps] == [6, 12]
    for number in (0, 1):  # the mean over a window is that over its two epochs
        mean = np.mean(epochs[2 * number : 2 * number + 2])
        assert steps[number][1] == pytest.approx(mean, rel=1e-5)
    assert spy.told[0] == "hparams"
    assert spy.told[-2:] == ["save", "success"]


def test_the_state_is_donated(small):
    trainer = spj.Trainer(progress=False)
    data = small.arrays(16)
    trainer.fit(small.linear(optim="adamw"), spj.ArrayLoader(data, 16))
    old = trainer.state
    batch = {**data, "sample_weight": np.ones(16, np.float32)}
    trainer.engine.train(old, trainer.placement.batch(batch))
    held = [leaf for part in ("params", "opt") for leaf in jax.tree.leaves(old[part])]
    assert all(leaf.is_deleted() for leaf in held)


def test_the_last_checkpoint_is_told_before_loggers_close(small, tmp_path):
    spy = Spy()
    trainer = spj.Trainer(
        logger=spy, callbacks=[spj.checkpoint.Checkpoint(tmp_path / "c")], progress=False
    )
    trainer.fit(small.linear(), small.loaders()[0])
    assert spy.told == ["hparams", str(tmp_path / "c" / "3"), "save", "success"]
    again = spj.Trainer(max_epochs=2, progress=False)
    again.callbacks = [spj.checkpoint.Checkpoint(tmp_path / "d")]
    again.fit(small.linear(), small.loaders()[0], resume_from=tmp_path / "c")
    assert again.global_step == 6


def test_a_ragged_batch_counts_its_own_rows_only(small):
    rows = small.arrays(20)
    full = spj.Trainer(progress=False)
    module = small.linear(optim={"type": "sgd", "lr": 0.1})
    full.fit(module, spj.ArrayLoader(rows, 16))
    by_hand = small.linear()
    x = rows["image"].reshape(20, -1)

    def loss_of(params, x):
        return ((x @ params["kernel"] + params["bias"]) ** 2).mean()

    params = {name: by_hand.layer.__getattribute__(name)[...] for name in ("kernel", "bias")}
    for part in (x[:16], x[16:]):
        grads = jax.grad(loss_of)(params, part)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
    np.testing.assert_allclose(module.layer.kernel[...], params["kernel"], rtol=1e-5, atol=1e-7)
    assert full.engine.traces["train"] == 1


def test_a_filled_row_enters_no_bank_and_no_metric(small):
    queue = spj.OnlineQueue("embedding", 100, "label")
    trainer = spj.Trainer(callbacks=[queue, spj.OnlineKNN(2, k=1)], progress=False)
    rows = small.arrays(20)
    rows["label"] = np.arange(20)
    trainer.fit(small.linear(optim=None), spj.ArrayLoader(rows, 16))
    assert len(queue) == 20
    assert queue.labels.tolist() == list(range(20))
    found = trainer.validate(trainer._module, spj.ArrayLoader(small.arrays(3), 16))
    assert found["eval/knn_acc"] in (0.0, 1 / 3, 2 / 3, 1.0)


@pytest.mark.parametrize("rows", [32, 40, 56])
def test_accumulation_equals_the_large_batch(small, rows):
    """Two batches of 8 make the step of one of 16, and a lonely last one makes its own."""
    data = small.arrays(rows)

    def fit(batch_size, accumulate):
        trainer = spj.Trainer(
            max_epochs=2,
            accumulate_grad_batches=accumulate,
            gradient_clip_val=0.05,
            log_every_n_steps=1,
            progress=False,
        )
        module = small.linear(optim={"type": "adamw", "lr": 0.1})
        trainer.fit(module, spj.ArrayLoader(data, batch_size))
        return trainer, module.layer.kernel[...]

    (one, large), (two, small_) = fit(16, 1), fit(8, 2)
    assert one.global_step == two.global_step == 2 * -(-rows // 16)
    np.testing.assert_allclose(large, small_, rtol=2e-4, atol=1e-6)
    assert two.callback_metrics["fit/loss"] == pytest.approx(
        one.callback_metrics["fit/loss"], rel=1e-4
    )
    assert two.engine.traces["train"] == 1


def test_clipping_bounds_the_step(small):
    module = small.linear(optim={"type": "sgd", "lr": 1.0})
    before = np.array(module.layer.kernel[...])
    spj.Trainer(max_steps=1, gradient_clip_val=1e-3, progress=False).fit(module, small.loaders()[0])
    moved = np.linalg.norm(np.asarray(module.layer.kernel[...]) - before)
    assert 0 < moved <= 1e-3 * 1.001


def test_bf16_keeps_weights_statistics_and_loss_in_f32(small):
    seen = {}

    def forward(self, batch, stage):
        state = spj.forward.simclr(self, batch, stage)
        seen.update({name: value.dtype for name, value in state.items()})
        return state

    module = small.simclr()
    module.settings = module.settings.__class__(**{**module.settings.__dict__, "forward": forward})
    one_step = {"max_steps": 1, "log_every_n_steps": 1, "progress": False}
    trainer = spj.Trainer(precision="bf16", **one_step)
    trainer.fit(module, small.loaders()[0])
    assert seen["embedding"] == seen["projection"] == jnp.bfloat16
    assert seen["loss"] == jnp.float32
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(nnx.state(module))}
    assert dtypes == {jnp.dtype("float32")}
    exact = spj.Trainer(**one_step)
    exact.fit(small.simclr(), small.loaders()[0])
    assert trainer.callback_metrics["fit/loss"] == pytest.approx(
        exact.callback_metrics["fit/loss"], rel=0.05
    )
    assert module.backbone.stem.dtype is None  # the live module is as it was


def test_validate_test_and_predict(whole, small):
    loader = small.loaders()[1]
    trainer, module = whole.trainer, whole.module
    metrics = trainer.test(module, loader)
    assert set(metrics) == {"test/probe_acc", "test/knn_acc", "test/rankme", "test/lidar"}
    assert trainer.validate(module, loader)["eval/probe_acc"] == metrics["test/probe_acc"]
    outputs = trainer.predict(module, loader)
    assert [len(part["embedding"]) for part in outputs] == [16, 6]
    fresh = spj.Trainer(limit_predict_batches=1).predict(module, loader)
    np.testing.assert_allclose(fresh[0]["embedding"], outputs[0]["embedding"], rtol=1e-5)
    assert len(fresh) == 1
    assert trainer.engine.traces == {"train": 1, "evaluate": 1, "test": 1, "predict": 1}


def test_the_modules_present_weights_are_evaluated(small):
    module, (train, val) = small.linear(), small.loaders()
    trainer = spj.Trainer(callbacks=[spj.OnlineKNN(2, k=1)], progress=False)
    trainer.fit(module, train)
    trainer.validate(module, val)
    layer = module.layer
    layer.kernel[...], layer.bias[...] = jnp.zeros((36, 4)), jnp.ones(4)
    assert trainer.validate(module, val)["validate/loss"] == 1.0
    assert (trainer.predict(module, val)[0]["embedding"] == 1.0).all()
    assert trainer.engine.traces == {"train": 1, "evaluate": 1, "predict": 1}


def test_an_interrupted_run_keeps_its_weights(small):
    class Stop(spj.Callback):
        def on_train_epoch_end(self, trainer, module):
            raise KeyboardInterrupt

    module, other = small.linear(), small.linear()
    with pytest.raises(KeyboardInterrupt):
        spj.Trainer(callbacks=[Stop()], progress=False).fit(module, small.loaders()[0])
    spj.Trainer(progress=False).fit(other, small.loaders()[0])
    assert small.same(module, other)


def test_a_prediction_needs_no_labels(small):
    data = small.arrays(8)
    module = small.simclr(optim=None)
    trainer = spj.Trainer(callbacks=small.callbacks()[:1], progress=False)
    (outputs,) = trainer.predict(module, spj.ArrayLoader({"image": data["image"]}, 8))
    assert outputs["embedding"].shape == (8, 8)
    assert "eval/probe_acc" in trainer.validate(module, spj.ArrayLoader(data, 8))


def test_the_live_module_keeps_its_mode(small):
    data, loader = small.arrays(8), spj.ArrayLoader(small.arrays(8), 8)
    module = small.simclr(optim=None)
    module.eval()
    before = np.asarray(module.backbone(data["image"]))
    outputs = spj.Trainer(progress=False).predict(module, loader)
    np.testing.assert_array_equal(module.backbone(data["image"]), before)
    np.testing.assert_allclose(outputs[0]["embedding"], before, rtol=1e-4, atol=1e-5)


def test_weights_in_containers_are_trained(small):
    def forward(self, batch, stage):
        x = batch["image"].reshape(len(batch["image"]), -1)
        x = self.heads["one"](self.layers[1](self.layers[0](x))) * self.scale[...]
        return {"loss": ((x - self.shift) ** 2).mean()}

    def linear(width):
        return nnx.Linear(width, 2, rngs=nnx.Rngs(0))

    module = spj.Module(
        forward=forward,
        layers=[linear(36), linear(2)],
        heads={"one": linear(2)},
        scale=nnx.Param(jnp.ones(())),
        shift=1.0,
        optim="sgd",
    )
    before = small.leaves(module)
    assert len(before) == 7
    spj.Trainer(progress=False).fit(module, small.loaders()[0])
    assert not any(np.array_equal(a, b) for a, b in zip(before, small.leaves(module), strict=True))
    Pair = collections.namedtuple("Pair", "a b")
    with pytest.raises(TypeError, match="'pair' holds weights in a Pair, where they would not be"):
        spj.Module(forward=forward, pair=Pair(linear(2), 3))


def test_the_validation_loss_is_the_mean_over_rows(small):
    module = small.linear(optim=None)
    data = small.arrays(22)
    found = spj.Trainer().validate(module, spj.ArrayLoader(data, 16))
    x = data["image"].reshape(22, -1)
    expected = ((x @ module.layer.kernel[...] + module.layer.bias[...]) ** 2).mean()
    assert found["validate/loss"] == pytest.approx(float(expected), rel=1e-5)


def test_without_an_optimizer_nothing_moves_and_probes_learn(small):
    module = small.simclr(optim=None)
    before = small.leaves(module)
    trainer = spj.Trainer(max_epochs=6, callbacks=small.callbacks(), progress=False)
    trainer.fit(module, *small.loaders())
    assert all(np.array_equal(a, b) for a, b in zip(before, small.leaves(module), strict=True))
    assert trainer.callback_metrics["train/probe_loss_epoch"] < 0.69


def test_limits_intervals_and_steps(small):
    spy = Spy()
    trainer = spj.Trainer(
        max_epochs=4,
        limit_train_batches=2,
        limit_val_batches=0.5,
        check_val_every_n_epoch=2,
        logger=spy,
        log_every_n_steps=3,
        progress=False,
        callbacks=[spj.OnlineKNN(2, k=1)],
    )
    trainer.fit(small.linear(), *small.loaders())
    assert trainer.global_step == 8
    assert sum("eval/knn_acc" in row for _, row in spy.rows) == 2
    capped = spj.Trainer(max_epochs=4, max_steps=5, progress=False)
    capped.fit(small.linear(), small.loaders()[0])
    assert (capped.global_step, capped.current_epoch, capped.epoch_batches) == (5, 1, 2)


def test_hooks_get_outputs_only_if_they_ask(small, tmp_path):
    order = []

    class Told(spj.Callback):
        def setup(self, trainer, module, stage):
            order.append(stage)

        def on_fit_start(self, trainer, module):
            order.append("start")

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            order.append((batch_idx, outputs["embedding"].shape, batch["name"][0]))

        def on_train_epoch_end(self, trainer, module):
            order.append("epoch")

        def on_fit_end(self, trainer, module):
            order.append("end")

    data = small.arrays(16)
    batches = [{**{k: v[i : i + 8] for k, v in data.items()}, "name": ["a"] * 8} for i in (0, 8)]
    trainer = spj.Trainer(callbacks=[Told()], progress=False)
    trainer.fit(small.linear(), batches)
    assert order == ["fit", "start", (0, (8, 4), "a"), (1, (8, 4), "a"), "epoch", "end"]
    plain = spj.Trainer(progress=False)
    plain.fit(small.linear(), batches)
    assert not plain.engine.plan.wants_outputs


def test_logged_scalars_of_the_forward_function(small):
    def forward(self, batch, stage):
        loss = (self.layer(batch["image"].reshape(len(batch["image"]), -1)) ** 2).mean()
        self.log("own/double", 2 * loss, on_step=True, sync_dist=True)
        return {"loss": loss}

    trainer = spj.Trainer(log_every_n_steps=1, progress=False)
    trainer.fit(small.linear(forward=forward), *small.loaders())
    metrics = trainer.callback_metrics
    assert metrics["own/double_epoch"] == pytest.approx(2 * metrics["fit/loss_epoch"], rel=1e-5)

    def wrong(self, batch, stage):
        self.log("rows", batch["image"][:, 0, 0, 0])
        return {"loss": jnp.zeros(())}

    with pytest.raises(ValueError, match=r"`log\('rows'\)` takes a scalar, got shape \(16,\)"):
        spj.Trainer(progress=False).fit(small.linear(forward=wrong), small.loaders()[0])


def test_the_same_seed_gives_the_same_run(small):
    def fit(seed):
        trainer = spj.Trainer(seed=seed, progress=False)
        return trainer.fit(small.simclr(), small.loaders()[0])

    first, again, other = fit(0), fit(0), fit(1)
    assert small.same(first, again)
    assert not small.same(first, other)


def test_the_progress_bar_and_its_line(small):
    import io

    from rich.console import Console
    from spt_jax.progress import RunProgress

    for terminal in (True, False):
        console = Console(
            file=io.StringIO(),
            force_terminal=terminal,
            width=200,
            color_system=None,
            highlight=False,
        )
        trainer = spj.Trainer(max_epochs=2, log_every_n_steps=1)
        trainer.bar = RunProgress(2, console=console)
        trainer.fit(small.linear(), small.loaders()[0])
        written = console.file.getvalue()
        assert "epoch 1/2  step 3" in written
        assert "fit/loss" in written
        assert ("3/3" in written) == terminal


def test_mistakes_are_named(small):
    train, _ = small.loaders()

    def fit(forward, *callbacks):
        module = spj.Module(forward=forward)
        spj.Trainer(callbacks=callbacks, progress=False).fit(module, train)

    def without_loss(self, batch, stage):
        return {"embedding": batch["image"].mean((1, 2))}

    def rows_of_loss(self, batch, stage):
        return {"loss": batch["image"].mean((1, 2, 3))}

    def bare(self, batch, stage):
        return batch["image"].mean()

    def no_embedding(self, batch, stage):
        return {"loss": batch["image"].mean(), "label": batch["label"]}

    with pytest.raises(KeyError, match=r"without_loss must return 'loss'.*\['embedding'\]"):
        fit(without_loss)
    with pytest.raises(KeyError, match=r"must return a scalar 'loss', got shape \(16,\)"):
        fit(rows_of_loss)
    with pytest.raises(TypeError, match="bare must return a dict"):
        fit(bare)
    with pytest.raises(ValueError, match="SimCLR trains on 2 views, got 1"):
        spj.Trainer(progress=False).fit(small.simclr(transform=False), train)
    with pytest.raises(
        KeyError, match=r"RankMe 'rankme' needs \['embedding'\]; .*\['label', 'loss'\]"
    ):
        fit(no_embedding, spj.RankMe())
    with pytest.raises(TypeError, match="a generator, which can be used only once"):
        spj.Trainer().fit(small.simclr(), (batch for batch in train))
    with pytest.raises(ValueError, match="training loader gave no batch"):
        spj.Trainer().fit(small.simclr(), [])
    with pytest.raises(TypeError, match="A batch must be a dict, got ndarray"):
        spj.Trainer().fit(small.linear(), [np.ones(3)])
    with pytest.raises(ValueError, match="one number of rows, got"):
        spj.Trainer().fit(small.linear(), [{"image": np.ones((4, 6, 6, 1)), "label": np.ones(3)}])
    grown = [{k: v[:n] for k, v in small.arrays(16).items()} for n in (8, 16)]
    with pytest.raises(ValueError, match="A batch has 16 rows, the first one had 8"):
        spj.Trainer(progress=False).fit(small.linear(), grown)
    odd = [small.arrays(8), {"image": np.ones((8, 6, 6, 1), np.float32)}]
    with pytest.raises(ValueError, match="all batches must have the same keys, shapes and types"):
        spj.Trainer(progress=False).fit(small.linear(), odd)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_epochs": 0}, "`max_epochs` must be >= 1, got 0"),
        ({"precision": "fp16"}, "`precision` must be 'f32' or 'bf16', got 'fp16'"),
        ({"gradient_clip_val": 0}, "`gradient_clip_val` must be > 0"),
        ({"limit_val_batches": 1.5}, "`limit_val_batches` must be a number of batches"),
    ],
)
def test_settings_of_the_trainer_are_checked(settings, words):
    with pytest.raises(ValueError, match=words):
        spj.Trainer(**settings)


def test_settings_of_module_and_manager_are_checked(small):
    with pytest.raises(ValueError, match="`forward` must be a function"):
        spj.Module(forward=3)
    with pytest.raises(ValueError, match="`save_every_n_epochs` must be >= 1"):
        spj.Manager(spj.Trainer(), None, None, save_every_n_epochs=0)
    with pytest.raises(AttributeError, match="Module has no component 'nothing'"):
        _ = small.linear().nothing


def test_importing_touches_no_device_and_no_torch():
    program = (
        "import sys, spt_jax\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge._backends, xla_bridge._backends\n"
        "assert not {'torch', 'lightning'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_coming_tree_mode_of_flax_gives_the_same_run():
    program = """
import sys; sys.path.insert(0, {folder!r})
import conftest as small, spt_jax as spj
from flax import nnx
def fit():
    trainer = spj.Trainer(progress=False)
    return trainer.fit(small.simclr(), small.loaders()[0])
first = fit()
if hasattr(nnx, "set_graph_mode"):
    nnx.set_graph_mode(False); nnx.set_graph_updates(False)
assert small.same(first, fit())
"""
    folder = str(__file__).rsplit("/", 1)[0]
    subprocess.run([sys.executable, "-c", program.format(folder=folder)], check=True)
