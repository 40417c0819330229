"""NT-Xent against the paper's formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import spt_jax as spj
from spt_jax.losses import l2_normalize


def reference(z_i, z_j, temperature):
    """Equation 1 averaged over the 2N views, in float64 with loops."""
    z = np.concatenate([z_i, z_j]).astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    n, total = len(z_i), 0.0
    for a in range(2 * n):
        scores = [np.exp(z[a] @ z[b] / temperature) for b in range(2 * n) if b != a]
        total -= np.log(np.exp(z[a] @ z[(a + n) % (2 * n)] / temperature) / sum(scores))
    return total / (2 * n)


def views(n, d):
    rng = np.random.default_rng(0)
    return [rng.normal(size=(n, d)).astype(np.float32) for _ in range(2)]


@pytest.mark.parametrize(("n", "d"), [(2, 1), (5, 3), (16, 8)])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_matches_the_paper(n, d, temperature):
    z_i, z_j = views(n, d)
    value = spj.NTXEntLoss(temperature)(z_i, z_j)
    assert float(value) == pytest.approx(reference(z_i, z_j, temperature), rel=1e-5)


def test_half_precision_and_zero_vectors():
    z_i, z_j = views(8, 4)
    half = spj.NTXEntLoss()(jnp.asarray(z_i, jnp.bfloat16), jnp.asarray(z_j, jnp.bfloat16))
    assert half.dtype == jnp.float32
    assert float(half) == pytest.approx(reference(z_i, z_j, 0.5), rel=2e-2)
    grad = jax.grad(lambda z: l2_normalize(z).sum())(jnp.zeros((2, 3)))
    assert bool(jnp.isfinite(grad).all())


def test_wrong_arguments_are_named():
    with pytest.raises(
        ValueError, match=r"one shape \(N, D\) with N >= 2, got \(2, 3\) and \(3, 3\)"
    ):
        spj.NTXEntLoss()(np.ones((2, 3)), np.ones((3, 3)))
    with pytest.raises(ValueError, match="`temperature` must be > 0, got 0"):
        spj.NTXEntLoss(0)
