"""Barlow Twins against the formula, the official code, and its memory promise."""

import numpy as np
import pytest
import torch
from spt_losses import BarlowTwinsLoss, barlow_twins_loss


def reference(z_i, z_j, lambd):
    """Equation 1 in NumPy float64 with loops, views standardised with the biased variance."""
    a, b = ((z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5) for z in (z_i, z_j))
    loss = 0.0
    for p in range(a.shape[1]):
        for q in range(a.shape[1]):
            c = a[:, p] @ b[:, q] / len(a)
            loss += (c - 1) ** 2 if p == q else lambd * c**2
    return loss


@pytest.mark.parametrize(("n", "d"), [(2, 1), (7, 3), (16, 32)])
@pytest.mark.parametrize("lambd", [0.0, 5e-3, 1.0])
def test_matches_the_paper(n, d, lambd):
    rng = np.random.default_rng(0)
    z_i, z_j = rng.normal(size=(2, n, d))
    value = barlow_twins_loss(torch.tensor(z_i), torch.tensor(z_j), lambd=lambd)
    assert value.item() == pytest.approx(reference(z_i, z_j, lambd), rel=1e-11)


def test_agrees_with_the_official_code(golden):
    g = golden("barlow_twins_a")
    z_i, z_j = g.inputs("z1", "z2")
    loss = BarlowTwinsLoss(g.param("lambd"))(z_i, z_j)
    loss.backward()
    g.check("out_loss", loss)
    g.check("grad_z1", z_i.grad)
    g.check("grad_z2", z_j.grad)


def test_agrees_with_lightly():
    lightly = pytest.importorskip("lightly.loss")
    z_i, z_j = torch.randn(2, 32, 8, generator=torch.Generator().manual_seed(0))
    theirs = lightly.BarlowTwinsLoss(lambda_param=0.01)(z_i, z_j)
    torch.testing.assert_close(BarlowTwinsLoss(0.01)(z_i, z_j), theirs, rtol=1e-4, atol=1e-5)


def test_perfect_views_cost_nothing():
    z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    assert barlow_twins_loss(3 * z, z + 1).item() == pytest.approx(0, abs=1e-8)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"same shape, got \(4, 8\) and \(3, 8\)"):
        barlow_twins_loss(torch.randn(4, 8), torch.randn(3, 8))
    with pytest.raises(ValueError, match="Barlow Twins needs at least 2 samples over all ranks"):
        barlow_twins_loss(torch.randn(1, 8), torch.randn(1, 8))
    with pytest.raises(ValueError, match="`lambd` must be >= 0, got -1"):
        BarlowTwinsLoss(-1.0)
