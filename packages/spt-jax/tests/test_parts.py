"""Augmentation, optimizers, callbacks' measures, loaders."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import spt_jax as spj
from flax import nnx
from spt_jax.callbacks.base import push
from spt_jax.callbacks.rankme import rankme


def test_two_views_differ_and_repeat_with_their_key():
    images = np.random.default_rng(0).random((4, 8, 8, 3), dtype=np.float32)
    transform = spj.augment.two_view_transform(6)
    batch = {"image": images, "label": np.arange(4)}
    out = transform(jax.random.PRNGKey(0), batch)
    first, second = (view["image"] for view in out["views"])
    assert first.shape == (4, 6, 6, 3)
    assert not np.allclose(first, second)
    again = transform(jax.random.PRNGKey(0), batch)["views"][0]["image"]
    assert np.array_equal(first, again)
    assert np.array_equal(out["views"][1]["label"], np.arange(4))
    assert float(first.min()) >= 0
    assert float(first.max()) <= 1


def test_a_whole_crop_is_a_resize():
    images = jnp.asarray(np.random.default_rng(0).random((2, 8, 8, 1)), jnp.float32)
    crop = spj.augment.random_resized_crop(
        jax.random.PRNGKey(0), images, 4, scale=(1.0, 1.0), ratio=(1.0, 1.0)
    )
    expected = jax.image.resize(images, (2, 4, 4, 1), "linear")
    np.testing.assert_allclose(crop, expected, atol=1e-5)


@pytest.mark.parametrize(
    "spec",
    ["adamw", {"type": "sgd", "lr": 0.1}, {"type": "LARS", "learning_rate": 5.0}, optax.adam(1e-3)],
)
def test_forms_of_optim(spec):
    tx = spj.create_optimizer(spec)
    params = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(updates))


def test_lars_leaves_biases_alone():
    tx = spj.create_optimizer({"type": "lars", "lr": 1.0, "eta": 0.1, "momentum": 0.0})
    params = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.1, rtol=1e-6)
    np.testing.assert_allclose(updates["b"], -1.0)


def test_schedules_and_errors():
    spec = {"optimizer": {"type": "sgd", "lr": 1.0}, "scheduler": "LinearWarmupCosineAnnealing"}
    assert spj.create_optimizer(spec, total_steps=10) is not None
    with pytest.raises(ValueError, match="needs `total_steps`"):
        spj.create_optimizer(spec)
    with pytest.raises(ValueError, match=r"Unknown optimizer 'adamww'; there are \['adam'"):
        spj.create_optimizer("adamww")
    with pytest.raises(ValueError, match="Unknown scheduler 'Step'"):
        spj.create_optimizer({"optimizer": "sgd", "scheduler": "Step"}, total_steps=3)
    with pytest.raises(TypeError, match="`optim` must be a name"):
        spj.create_optimizer(3)


@pytest.mark.parametrize("length", [3, 8])
def test_a_ring_keeps_the_newest(length):
    rows, told = jnp.full((length,), -1), []
    for step in range(4):
        new = jnp.arange(5) + 10 * step
        rows = push(rows, jnp.asarray(5 * step), new)
        told += new.tolist()
    assert sorted(rows.tolist()) == sorted(told[-length:])


def test_rankme_of_known_spectra():
    assert rankme(np.eye(4)) == pytest.approx(4.0, rel=1e-5)
    assert rankme(np.ones((5, 3))) == pytest.approx(1.0, rel=1e-4)


def test_the_order_depends_on_seed_and_epoch():
    def order(seed, epoch):
        loader = spj.ArrayLoader({"x": np.arange(10)}, 4, shuffle=True, seed=seed)
        loader.set_epoch(epoch)
        return np.concatenate([batch["x"] for batch in loader]).tolist()

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert sorted(order(3, 0)) == list(range(10))
    assert len(spj.ArrayLoader({"x": np.arange(10)}, 4)) == 3
    with pytest.raises(ValueError, match="`arrays` must have one length"):
        spj.ArrayLoader({"x": np.arange(3), "y": np.arange(2)}, 1)


def test_resnet18_has_torchvisions_size():
    model = nnx.eval_shape(lambda: spj.backbone.resnet18(rngs=nnx.Rngs(0)))
    sizes = [leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))]
    assert sum(sizes) == 11_176_512


def test_shapes_of_small_networks():
    rngs = nnx.Rngs(0)
    for low_resolution in (False, True):
        model = spj.backbone.ResNet(
            (1, 1), (2, 4), rngs=rngs, in_channels=1, low_resolution=low_resolution
        )
        assert model(jnp.zeros((2, 12, 12, 1))).shape == (2, 4)
    with pytest.raises(ValueError, match="one entry per stage"):
        spj.backbone.ResNet((1,), (2, 4), rngs=rngs)
    with pytest.raises(ValueError, match="widths of its layers"):
        spj.backbone.MLP(3, [], rngs=rngs)
    with pytest.raises(ValueError, match="`k` of OnlineKNN 'knn' must be > 0"):
        spj.OnlineKNN(3, k=0)
