"""Rings, queues, writers, early stopping, probes with BatchNorm, teachers' coefficients."""

import jax.numpy as jnp
import numpy as np
import pytest
import spt_jax as spj
from flax import nnx
from spt_jax.callbacks.queue import oldest_first
from spt_jax.ring import push


@pytest.mark.parametrize("length", [3, 8])
def test_a_ring_keeps_the_newest(length):
    ring, seen, told = jnp.full((length,), -1), jnp.zeros((), jnp.int32), []
    for step in range(6):
        new = jnp.arange(5) + 10 * step
        weight = jnp.asarray([1, 1, 0, 1, step % 2])
        ring, seen = push(ring, seen, new, weight)
        told += [int(x) for x, w in zip(new, weight, strict=True) if w]
        held = oldest_first({"rows": ring, "seen": seen})
        assert held.tolist() == told[-length:]
    assert int(seen) < 2 * length  # the count cannot overflow


def test_rankme_of_known_spectra():
    assert spj.callbacks.rankme(np.eye(4)) == pytest.approx(4.0, rel=1e-5)
    assert spj.callbacks.rankme(np.ones((5, 3))) == pytest.approx(1.0, rel=1e-4)
    with pytest.raises(ValueError, match=r"`embeddings` must have shape \(N, D\), got \(3,\)"):
        spj.callbacks.rankme(np.ones(3))
    with pytest.raises(ValueError, match="two images with two views each, got 2 rows of 2 images"):
        spj.callbacks.lidar(np.eye(2), np.arange(2))


def test_queues_hold_the_newest_rows_with_their_labels(small):
    queue = spj.OnlineQueue("embedding", 24, label_key="label")
    with pytest.raises(RuntimeError, match="is empty before a run has started"):
        len(queue)
    data = small.arrays(40)
    data["label"] = np.arange(40)
    trainer = spj.Trainer(callbacks=[queue], progress=False)
    module = small.linear(optim=None)
    trainer.fit(module, spj.ArrayLoader(data, 16))
    assert len(queue) == 24
    assert queue.labels.tolist() == list(range(16, 40))
    expected = (
        data["image"][16:].reshape(24, -1) @ module.layer.kernel[...] + module.layer.bias[...]
    )
    np.testing.assert_allclose(queue.features, expected, rtol=1e-4, atol=1e-5)


def test_outputs_are_written_without_filling(small, tmp_path):
    writer = spj.OnlineWriter(["embedding", "label"], tmp_path, ("train", "val"), every_n_epochs=2)
    trainer = spj.Trainer(max_epochs=3, callbacks=[writer], progress=False)
    trainer.fit(small.linear(), *small.loaders())
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"{phase}_epoch{n}.npz" for phase in ("train", "val") for n in (0, 2)]
    written = np.load(tmp_path / "val_epoch2.npz")
    assert written["embedding"].shape == (22, 4)
    assert written["label"].tolist() == small.arrays(22, seed=1)["label"].tolist()
    assert len(np.load(tmp_path / "train_epoch2.npz")["label"]) == 40
    trainer.validate(trainer._module, small.loaders()[1])
    trainer.test(trainer._module, spj.ArrayLoader(small.arrays(5), 16))
    assert np.load(tmp_path / "val_epoch3.npz")["embedding"].shape == (22, 4)
    assert np.load(tmp_path / "test_epoch3.npz")["embedding"].shape == (5, 4)
    only = spj.OnlineWriter(["embedding"], tmp_path)
    assert (only.reads_outputs("val"), only.reads_outputs("train")) == (True, False)


@pytest.mark.parametrize(
    ("mode", "values", "stops"),
    [
        ("max", [0.1, 0.3, 0.3, 0.2], 3),
        ("min", [3.0, 2.0, 1.0, 0.5], None),
        ("min", [1.0, 2.0, 2.0, 0.1], 2),
    ],
)
def test_early_stopping(mode, values, stops):
    stopping = spj.EarlyStopping("m", mode, patience=2)

    class Fake:
        callback_metrics: dict = {}
        stopped = None

        def stop(self):
            self.stopped = self.epoch

    trainer = Fake()
    for epoch, value in enumerate(values):
        trainer.epoch, trainer.callback_metrics = epoch, {"m": value}
        copy = spj.EarlyStopping("m", mode, patience=2)  # as after a restart
        copy.load_state_dict(stopping.state_dict())
        stopping = copy
        stopping.on_validation_epoch_end(trainer, None)
        if trainer.stopped is not None:
            break
    assert trainer.stopped == stops
    trainer.callback_metrics = {"a": 1.0}
    with pytest.raises(KeyError, match=r"EarlyStopping watches 'm'; there are \['a'\]"):
        stopping.on_validation_epoch_end(trainer, None)


@pytest.mark.parametrize("metrics", [True, False])
def test_early_stopping_ends_a_run(small, metrics):
    """Whether or not the validation has metrics of its own."""

    def unmeasured(self, batch, stage):
        outputs = linear.settings.forward(self, batch, stage)
        return outputs if stage == "fit" or metrics else {"embedding": outputs["embedding"]}

    linear = small.linear()
    stopping = spj.EarlyStopping("fit/loss", "max", patience=1)
    trainer = spj.Trainer(max_epochs=9, callbacks=[stopping], progress=False)
    module = small.linear(optim={"type": "sgd", "lr": 0.1}, forward=unmeasured)
    trainer.fit(module, *small.loaders())
    assert trainer.current_epoch == 2  # the loss falls from the second epoch on
    fresh = spj.Trainer(callbacks=[stopping], progress=False)
    fresh.validate(module, small.loaders()[1])  # no training: nothing to stop


def test_a_probe_may_hold_batchnorm_and_dropout(small):
    rngs = nnx.Rngs(0)
    probe = nnx.Sequential(
        spj.backbone.BatchNorm(4, rngs=rngs),
        nnx.Dropout(0.1, rngs=rngs),
        nnx.Linear(4, 2, rngs=rngs),
    )
    callback = spj.OnlineProbe("deep", probe, optim={"type": "adamw", "lr": 0.1})
    trainer = spj.Trainer(max_epochs=8, callbacks=[callback], progress=False)
    trainer.fit(small.linear(optim=None), *small.loaders())
    assert trainer.callback_metrics["eval/deep_acc"] > 0.8
    assert trainer.engine.traces == {"train": 1, "evaluate": 1}


def test_the_probe_is_the_trained_one_after_a_run(small):
    probe = nnx.Linear(4, 2, rngs=nnx.Rngs(0))
    before = small.leaves(probe)
    callback = spj.OnlineProbe("own", probe, optim={"type": "adamw", "lr": 0.1})
    assert np.isnan(callback.accuracy)

    def fit():
        trainer = spj.Trainer(max_epochs=2, callbacks=[callback], progress=False)
        module, (train, val) = small.linear(optim=None), small.loaders()
        outputs = trainer.fit(module, train, val) and trainer.predict(module, val)
        return trainer, outputs, small.leaves(probe)

    trainer, outputs, after = fit()
    assert callback.accuracy == trainer.callback_metrics["eval/own_acc"]
    hits = [probe(part["embedding"]).argmax(-1) == part["label"] for part in outputs]
    assert np.concatenate(hits).mean() == pytest.approx(callback.accuracy)
    assert not np.array_equal(before[1], after[1])
    assert all(map(np.array_equal, fit()[2], after))  # a further run begins where the first did


def test_details_of_the_ranks_are_logged_if_asked(small):
    """And images are told apart by a key of the batch, views of several batches included."""
    data = small.arrays(32)
    data["image_id"] = np.tile(np.arange(8), 4)  # each image in all four batches

    def forward(self, batch, stage):
        state = plain(self, batch, stage)
        return {**state, "image_id": batch["image_id"]}

    plain = small.linear().settings.forward
    module = small.linear(optim=None, forward=forward)
    quiet = spj.LiDAR("by_row", queue_length=32)
    told = spj.LiDAR("by_image", target="image_id", verbose=True, queue_length=32)
    rank = spj.RankMe(verbose=True, queue_length=32)
    trainer = spj.Trainer(callbacks=[quiet, told, rank], progress=False)
    trainer.fit(module, spj.ArrayLoader(data, 8), spj.ArrayLoader(data, 8))
    metrics = trainer.callback_metrics
    assert "by_row" not in metrics  # no image has two views in a batch
    rows = data["image"].reshape(32, -1) @ module.layer.kernel[...] + module.layer.bias[...]
    rows = np.asarray(rows, np.float64)
    singular = np.linalg.svd(rows, compute_uv=False)
    assert metrics["rankme/top_singular_value"] == pytest.approx(singular[0], rel=1e-4)
    assert metrics["rankme"] == pytest.approx(np.exp(metrics["rankme/entropy"]), rel=1e-6)
    assert metrics["rankme"] == pytest.approx(spj.callbacks.rankme(rows), rel=1e-4)
    expected = spj.callbacks.lidar(rows, data["image_id"])
    assert metrics["by_image"] == pytest.approx(expected, rel=1e-3)
    assert metrics["by_image"] == pytest.approx(np.exp(metrics["by_image/entropy"]), rel=1e-6)
    assert metrics["by_image/top_eigenvalue"] > 0


def test_the_teachers_coefficient_is_logged(small):
    module = small.linear()
    with pytest.raises(ValueError, match="found no TeacherStudentWrapper in Module"):
        spj.Trainer(callbacks=[spj.TeacherStudentCallback()]).fit(module, small.loaders()[0])
    views = [{"views": [{"image": np.ones((4, 6, 6, 1), np.float32) * i} for i in (1, 2)]}] * 2
    encoder = spj.backbone.MLP(36, (4,), rngs=nnx.Rngs(0))
    settings = {"projector_dims": (4,), "predictor_hidden": 4, "optim": "sgd", "base_ema": 0.5}
    for scheduled, expected in ((True, 0.75), (False, 0.5)):
        byol = spj.BYOL(encoder, 4, rngs=nnx.Rngs(0), **settings)
        trainer = spj.Trainer(callbacks=[spj.TeacherStudentCallback(scheduled)], progress=False)
        trainer.fit(byol, views)
        found = trainer.callback_metrics["teacher_student/ema_coefficient"]
        assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: spj.OnlineKNN(3, k=0), "`k` of OnlineKNN 'knn' must be > 0"),
        (lambda: spj.OnlineKNN(3, metric="dot"), "must be 'cosine' or 'euclidean', got 'dot'"),
        (lambda: spj.OnlineQueue(queue_length=0), "`queue_length` of 'queue' must be > 0"),
        (lambda: spj.LiDAR(delta=0), "`delta` of LiDAR 'lidar' must be > 0"),
        (lambda: spj.LiDAR(group="a", target="b"), "`group` and `target` of LiDAR 'lidar' are one"),
        (lambda: spj.EarlyStopping("m", "best"), "`mode` must be 'min' or 'max'"),
        (lambda: spj.OnlineWriter("embedding", "."), "`names` must be a sequence of keys"),
        (lambda: spj.OnlineWriter(["a"], ".", ("test",)), "`during` must hold 'train' or 'val'"),
    ],
)
def test_wrong_settings_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
