"""TiCo against both public ports, the formula, and its running covariance."""

import pytest
import torch
from spt_losses import TiCoLoss, tico_loss
from torch.nn import functional as F


def reference(z1, z2, previous, beta, rho):
    """Equation 5 with loops over rows."""
    a, b = F.normalize(z1, dim=1), F.normalize(z2, dim=1)
    batch = sum(torch.outer(row, row) for row in a) / len(a)
    c = beta * previous + (1 - beta) * batch
    agreement = sum(x @ y for x, y in zip(a, b, strict=True)) / len(a)
    return 1 - agreement + rho * sum(row @ c @ row for row in a) / len(a), c


def test_matches_the_formula():
    z1, z2 = torch.randn(2, 5, 3, dtype=torch.float64)
    z1.requires_grad_()
    previous = torch.randn(3, 3, dtype=torch.float64)
    previous = previous @ previous.T
    value, _ = tico_loss(z1, z2, previous, beta=0.7, rho=8.0)
    expected, _ = reference(z1, z2, previous, 0.7, 8.0)
    torch.testing.assert_close(value, expected)
    ours, theirs = (torch.autograd.grad(x, z1)[0] for x in (value, expected))
    torch.testing.assert_close(ours, theirs)


def test_agrees_with_the_public_ports_step_by_step(golden):
    """Values of lightly's; the gradient of the port that lets it through the covariance."""
    g = golden("tico_a")
    loss = TiCoLoss(g.param("beta"), g.param("rho"))
    z1, z2 = g.inputs("z1", "z2")
    values, covariances = [], []
    for a, b in zip(z1, z2, strict=True):
        values.append(loss(a, b))
        covariances.append(loss.covariance.clone())
    sum(values).backward()
    g.check("out_loss", torch.stack(values))
    g.check("out_through_C_loss", torch.stack(values) - 1)
    g.check("buf_covariance_after", torch.stack(covariances))
    g.check("grad_z1__through_C", z1.grad)
    g.check("grad_z2", z2.grad)


def test_agrees_with_lightly():
    lightly = pytest.importorskip("lightly.loss")
    ours, theirs = TiCoLoss(beta=0.8, rho=8.0), lightly.TiCoLoss(beta=0.8, rho=8.0)
    for _ in range(3):
        z1, z2 = torch.randn(2, 7, 4)
        torch.testing.assert_close(ours(z1, z2), theirs(z1, z2))


def test_accumulated_batches_are_one_large_batch():
    """The covariance; also of batches of unequal size."""
    whole, parts = TiCoLoss().double(), TiCoLoss(accumulate=3).double()
    for _ in range(3):
        z1, z2 = torch.randn(2, 12, 4, dtype=torch.float64)
        whole(z1, z2)
        for a, b in zip(z1.split([3, 4, 5]), z2.split([3, 4, 5]), strict=True):
            parts(a, b)
        torch.testing.assert_close(parts.covariance, whole.covariance)


def test_the_covariance_is_saved_and_kept_in_evaluation():
    loss, fresh = TiCoLoss(), TiCoLoss()
    z1, z2 = torch.randn(2, 5, 3)
    assert not loss.state_dict()
    loss(z1, z2)
    fresh.load_state_dict(loss.state_dict())
    assert torch.equal(fresh.covariance, loss.covariance)
    before = loss.covariance.clone()
    assert loss.eval()(z1, z2) == fresh.eval()(z1, z2)
    assert torch.equal(loss.covariance, before)


def test_a_short_last_window_can_be_closed():
    parts, direct = TiCoLoss(accumulate=4), TiCoLoss()
    z1, z2 = torch.randn(2, 5, 3)
    parts(z1, z2)
    assert parts.covariance is None
    parts.flush()
    parts.flush()  # nothing waits any more
    direct(z1, z2)
    assert torch.equal(parts.covariance, direct.covariance)


def test_collapse_is_not_a_minimum():
    """A constant encoder pays more than one that spreads and agrees."""
    constant, spread = torch.ones(8, 8), torch.eye(8)
    high, low = (
        tico_loss(x, x, x.T @ x / 8 / x.square().sum(1).mean())[0] for x in (constant, spread)
    )
    assert high > low + 1


def test_it_can_be_differentiated_once():
    z = torch.randn(4, 3, requires_grad=True)
    loss, _ = tico_loss(z, z.detach())
    with pytest.raises(RuntimeError, match="can be differentiated once"):
        torch.autograd.grad(loss, z, create_graph=True)


def test_wrong_arguments_are_named():
    z = torch.randn(5, 3)
    with pytest.raises(ValueError, match=r"`covariance` must have shape \(3, 3\), got \(4, 4\)"):
        tico_loss(z, z, torch.eye(4))
    with pytest.raises(ValueError, match="`z1` and `z2` must have the same shape"):
        tico_loss(z, z[:4])
    with pytest.raises(ValueError, match=r"`beta` must lie in \[0, 1\], got 2"):
        TiCoLoss(beta=2.0)
    with pytest.raises(ValueError, match="`rho` must be >= 0, got -1"):
        TiCoLoss(rho=-1.0)
