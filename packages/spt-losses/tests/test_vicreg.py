"""VICReg against the formula, the official code and lightly."""

import numpy as np
import pytest
import torch
from spt_losses import VICRegLoss, vicreg_loss


def spread(z, std_coeff, cov_coeff):
    hinge = np.maximum(0, 1 - np.sqrt(z.var(0, ddof=1) + 1e-4)).mean() / 2
    cov = np.cov(z.T).reshape(z.shape[1], z.shape[1])
    return std_coeff * hinge + cov_coeff * ((cov**2).sum() - (np.diag(cov) ** 2).sum()) / len(cov)


@pytest.mark.parametrize(("n", "d"), [(2, 1), (7, 3), (16, 32)])
@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (1.0, 0.0, 3.0), (0.0, 2.0, 0.0)])
def test_matches_the_formula(n, d, weights):
    sim, std, cov = weights
    z_i, z_j = 0.7 * np.random.default_rng(0).normal(size=(2, n, d))
    expected = sim * ((z_i - z_j) ** 2).mean() + spread(z_i, std, cov) + spread(z_j, std, cov)
    value = VICRegLoss(sim, std, cov)(torch.tensor(z_i), torch.tensor(z_j))
    assert value.item() == pytest.approx(expected, rel=1e-11)


def test_agrees_with_the_official_code(golden):
    g = golden("vicreg_a")
    z_i, z_j = g.inputs("z1", "z2")
    loss = VICRegLoss()(z_i, z_j)
    loss.backward()
    g.check("out_loss", loss)
    g.check("grad_z1", z_i.grad)
    g.check("grad_z2", z_j.grad)


def test_agrees_with_lightly():
    lightly = pytest.importorskip("lightly.loss")
    z_i, z_j = torch.randn(2, 32, 8, generator=torch.Generator().manual_seed(0))
    theirs = lightly.VICRegLoss()(z_i, z_j)
    torch.testing.assert_close(vicreg_loss(z_i, z_j), theirs, rtol=1e-4, atol=1e-5)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"same shape, got \(4, 8\) and \(4, 7\)"):
        vicreg_loss(torch.randn(4, 8), torch.randn(4, 7))
    with pytest.raises(ValueError, match="`cov_coeff` must be >= 0, got -1"):
        VICRegLoss(cov_coeff=-1.0)
