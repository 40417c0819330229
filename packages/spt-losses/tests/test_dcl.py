"""Decoupled contrastive learning against public code, and its promises."""

import pytest
import torch
from spt_losses import DCLLoss, dcl_loss, ntxent_loss


def test_agrees_with_public_code(golden):
    g = golden("dcl_a")
    z1, z2 = g.inputs("z1", "z2")
    loss = DCLLoss(g.param("temperature"))(z1, z2)
    loss.backward()
    g.check("out_loss", loss)
    g.check("grad_z1", z1.grad)
    g.check("grad_z2", z2.grad)


def test_the_weighted_form_agrees_with_public_code(golden):
    g = golden("dcl_a")
    z1, z2 = g.inputs("z1", "z2")
    loss = DCLLoss(g.param("temperature"), sigma=g.param("sigma"))(z1, z2)
    loss.backward()
    g.check("out_loss_weighted", loss)
    g.check("grad_z1__weighted_through", z1.grad)
    g.check("grad_z2__weighted_through", z2.grad)


def test_agrees_with_lightly():
    lightly = pytest.importorskip("lightly.loss")
    z_i, z_j = torch.randn(2, 9, 7, generator=torch.Generator().manual_seed(0))
    theirs = lightly.DCLLoss(temperature=0.2)(z_i, z_j)
    torch.testing.assert_close(dcl_loss(z_i, z_j, temperature=0.2), theirs, rtol=1e-5, atol=1e-5)


def test_it_is_below_ntxent_by_what_the_positive_adds():
    z_i, z_j = torch.randn(2, 5, 4, dtype=torch.float64)
    units = torch.stack([z_i, z_j], 1).flatten(0, 1)
    units = units / units.norm(dim=1, keepdim=True)
    scores = (units @ units.T / 0.5).exp()
    pairs = torch.arange(10) // 2
    others = scores.masked_fill(pairs[:, None] == pairs, 0).sum(1)
    positive = scores.gather(1, (torch.arange(10) ^ 1)[:, None]).squeeze(1)
    difference = ((others + positive) / others).log().mean()
    ours = dcl_loss(z_i, z_j, temperature=0.5)
    torch.testing.assert_close(ntxent_loss(z_i, z_j, temperature=0.5) - ours, difference)


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_chunks_change_nothing(chunk_size):
    z = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    whole, parts = (dcl_loss(*z, sigma=0.5, chunk_size=size) for size in (None, chunk_size))
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts, z), torch.autograd.grad(whole, z))


@pytest.mark.parametrize("temperature", [1e-4, 1e4])
def test_extreme_temperatures_stay_finite(temperature):
    z = torch.randn(2, 5, 4, requires_grad=True)
    loss = dcl_loss(*z, temperature=temperature, sigma=1e-3)
    loss.backward()
    assert loss.isfinite()
    assert z.grad.isfinite().all()


def test_wrong_arguments_are_named():
    z = torch.randn(4, 8)
    with pytest.raises(ValueError, match=r"same shape, got \(4, 8\) and \(3, 8\)"):
        dcl_loss(z, z[:3])
    with pytest.raises(ValueError, match="Decoupled contrastive learning needs at least 2 samples"):
        dcl_loss(z[:1], z[:1])
    with pytest.raises(ValueError, match="`sigma` must be > 0, got 0"):
        DCLLoss(sigma=0.0)
