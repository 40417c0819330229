"""The grammar of optimizers and schedules; steps are compared with torch in test_parity."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import spt_jax as spj
from spt_jax.optim import build_optimizer, weight_mask

PARAMS = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2), "pos_embed": jnp.ones((1, 4, 2))}


def one_step(spec, grads=None, params=PARAMS, **settings):
    tx = spj.create_optimizer(spec, **settings)
    grads = jax.tree.map(jnp.zeros_like, params) if grads is None else grads
    updates, _ = tx.update(grads, tx.init(params), params)
    return updates


@pytest.mark.parametrize(
    "spec",
    [
        None,
        "adamw",
        "LION",
        {"type": "sgd", "lr": 0.1},
        {"type": "LARS", "learning_rate": 5.0},
        {"optimizer": "lamb", "scheduler": None},
        {"optimizer": {"type": "Adam", "lr": 1.0}, "scheduler": {"type": "StepLR"}},
        optax.adam(1e-3),
        lambda: optax.sgd(0.1),
    ],
)
def test_every_way_to_name_an_optimizer(spec):
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    updates = one_step(spec, grads)
    assert all(float(jnp.abs(u).max()) > 0 for u in jax.tree.leaves(updates))


def test_defaults_are_torchs():
    decay = one_step({"type": "AdamW", "lr": 1.0})
    np.testing.assert_allclose(decay["kernel"], -0.01, rtol=1e-5)
    free = one_step({"type": "AdamW", "lr": 1.0, "exclude_bias_norm": True})
    np.testing.assert_allclose(free["kernel"], -0.01, rtol=1e-5)
    assert not free["bias"].any()
    assert not free["pos_embed"].any()
    lars = one_step({"type": "LARS", "lr": 1.0, "weight_decay": 0.5})
    assert not lars["bias"].any()  # excluded by default
    asked = {"type": "LARS", "lr": 1.0, "weight_decay": 0.5, "exclude_bias_norm": False}
    assert one_step(asked, jax.tree.map(jnp.ones_like, PARAMS))["bias"][0] != -1.0
    assert not one_step({**asked, "exclude_bias_norm": True})["bias"].any()
    assert weight_mask(PARAMS) == {"kernel": True, "bias": False, "pos_embed": False}


def test_steps_that_are_not_finite_are_left_out():
    grads = jax.tree.map(lambda p: p * jnp.nan, PARAMS)
    kept = one_step({"type": "sgd", "lr": 1.0, "skip_nonfinite": 3}, grads)
    assert not any(leaf.any() for leaf in jax.tree.leaves(kept))


def test_a_schedule_may_count_epochs():
    spec = {
        "optimizer": {"type": "sgd", "lr": 1.0},
        "scheduler": "CosineAnnealingLR",
        "interval": "epoch",
    }
    rate = build_optimizer(spec, total_steps=12, steps_per_epoch=3).rate
    found = [float(rate(step)) for step in range(12)]
    expected = [0.5 * (1 + np.cos(np.pi * epoch / 4)) for epoch in range(4) for _ in range(3)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    warm = spj.optim.warmup_cosine_schedule(2.0, 10, 4, 0.5)
    np.testing.assert_allclose([float(warm(s)) for s in (0, 2, 4, 10)], [0, 1, 2, 0.5], rtol=1e-6)


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ("adamww", ValueError, "Unknown optimizer 'adamww'; there are"),
        (3, TypeError, "`optim` must be a name"),
        (
            {"type": "sgd", "beta": 1},
            TypeError,
            r"sgd has no argument \['beta'\]; there are \['lr'",
        ),
        (
            {"type": "rmsprop", "exclude_bias_norm": True},
            TypeError,
            r"rmsprop has no argument \['exclude_bias_norm'\]",
        ),
        (
            {"optimizer": optax.sgd(0.1), "scheduler": "StepLR"},
            TypeError,
            "give the schedule to the transformation",
        ),
        ({"optimizer": "sgd", "schedule": "x"}, TypeError, r"unknown keys \['schedule'\]"),
        ({"optimizer": "sgd", "scheduler": "Cosine"}, ValueError, "Unknown scheduler 'Cosine'"),
        ({"optimizer": "sgd", "scheduler": 3}, TypeError, "The scheduler must be a name"),
        ({"optimizer": "sgd", "scheduler": "LinearWarmup"}, ValueError, "needs `total_steps`"),
        (
            {"optimizer": "sgd", "scheduler": {"type": "StepLR", "size": 3}},
            TypeError,
            r"StepLR has no argument \['size'\]; there are \['step_size', 'gamma'\]",
        ),
        ({"type": "lars", "momentum": 1.0}, ValueError, r"`momentum` must be in \[0, 1\), got 1.0"),
        (
            {
                "optimizer": "sgd",
                "scheduler": {"type": "LinearWarmup", "total_steps": 3, "peak_step": 4},
            },
            ValueError,
            "`peak_step` must be a fraction",
        ),
        ({"optimizer": "sgd", "scheduler": "StepLR", "interval": "day"}, ValueError, "`interval`"),
    ],
)
def test_mistakes_are_named(spec, error, words):
    with pytest.raises(error, match=words):
        spj.create_optimizer(spec)
