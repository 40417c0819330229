"""Values at the edge: huge scores, zero vectors, half precision; objects of losses equal their functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import spt_jax as spj
from spt_jax import losses

RNG = np.random.default_rng(0)
A, B = (jnp.asarray(RNG.normal(size=(6, 5)).astype(np.float32)) for _ in range(2))
SCORES = jnp.asarray(RNG.normal(size=(6, 7)).astype(np.float32))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e4, 1e30])
def test_sinkhorn_of_scores_of_any_size(scale):
    found = np.asarray(losses.sinkhorn(SCORES * scale))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-4)
    assert np.isfinite(spj.SwAVLoss()(SCORES * scale, -SCORES * scale))


def test_the_direction_of_a_zero_vector_is_zero_and_so_is_its_gradient():
    rows = jnp.zeros((3, 5)).at[0].set(A[0])
    unit, pull = jax.vjp(losses.l2_normalize, rows)
    np.testing.assert_allclose(jnp.linalg.norm(unit, axis=1), [1, 0, 0], rtol=1e-6)
    (gradient,) = pull(jnp.ones_like(unit))
    assert np.isfinite(gradient).all()
    for loss in (spj.NTXEntLoss(), spj.BYOLLoss(), spj.NegativeCosineSimilarity()):
        value, gradient = jax.value_and_grad(loss)(rows, B[:3])
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


PAIRS = {
    "NTXEntLoss": (spj.NTXEntLoss(0.3), lambda a, b: losses.ntxent_loss(a, b, temperature=0.3)),
    "VICRegLoss": (spj.VICRegLoss(), losses.vicreg_loss),
    "BarlowTwinsLoss": (
        spj.BarlowTwinsLoss(0.02),
        lambda a, b: losses.barlow_twins_loss(a, b, lambd=0.02),
    ),
    "BYOLLoss": (spj.BYOLLoss(), losses.byol_loss),
    "NegativeCosineSimilarity": (spj.NegativeCosineSimilarity(), losses.negative_cosine),
    "InfoNCELoss": (
        lambda a, b: spj.InfoNCELoss(0.2)(a, b, jnp.arange(6)),
        lambda a, b: losses.info_nce_loss(a, b, jnp.arange(6), temperature=0.2),
    ),
}


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_objects_are_their_functions_and_half_precision_is_widened(name):
    loss, function = PAIRS[name]
    assert loss(A, B) == function(A, B)
    assert jax.jit(loss)(A, B) == pytest.approx(float(function(A, B)), rel=1e-5)
    half = [x.astype(jnp.bfloat16) for x in (A, B)]
    found = loss(*half)
    assert found.dtype == jnp.float32
    assert found == function(*(x.astype(jnp.float32) for x in half))


def test_swav_swaps_the_codes_of_two_views():
    loss = spj.SwAVLoss(temperature=0.2, sinkhorn_iterations=2, epsilon=0.1)
    first, second = SCORES, SCORES[::-1] * 0.7
    codes = [losses.sinkhorn(scores, 0.1, 2) for scores in (first, second)]
    forth = -(codes[1] * jax.nn.log_softmax(first / 0.2)).sum(1).mean()
    back = -(codes[0] * jax.nn.log_softmax(second / 0.2)).sum(1).mean()
    assert loss(first, second) == pytest.approx(float(forth + back) / 2, rel=1e-6)
    by_hand = jax.grad(lambda s: -(codes[1] * jax.nn.log_softmax(s / 0.2)).sum(1).mean() / 2)(
        first
    )  # codes have no gradient
    np.testing.assert_allclose(jax.grad(loss)(first, second), by_hand, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: spj.NTXEntLoss(0.0), "`temperature` must be > 0, got 0.0"),
        (lambda: spj.InfoNCELoss(-1.0), "`temperature` must be > 0"),
        (lambda: spj.SwAVLoss(epsilon=0.0), "`epsilon` must be > 0"),
        (lambda: spj.NTXEntLoss()(A, B[:3]), r"must have one shape \(N, D\) with N >= 2, got"),
        (lambda: spj.NTXEntLoss()(A[:1], B[:1]), "N >= 2"),
        (
            lambda: losses.info_nce_loss(A, B[:, :3], jnp.arange(6)),
            r"`anchors` \(n, D\), `candidates` \(m, D\) and `targets` \(n,\) do not fit",
        ),
        (lambda: losses.swav_loss([A], B), "SwAV needs at least 2 views"),
        (lambda: losses.dino_loss(SCORES[None], SCORES[None]), "no pair of different crops"),
        (
            lambda: losses.dino_loss(SCORES[None], SCORES[None, :, :3]),
            "must agree in B and K, got",
        ),
        (lambda: losses.off_diagonal(A), "`x` must be a square matrix"),
    ],
)
def test_what_does_not_fit_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
