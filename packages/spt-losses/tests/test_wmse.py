"""W-MSE against the official code, whitening by another road, and degenerate batches."""

import copy

import pytest
import torch
from spt_losses import WMSELoss, whiten, wmse_loss
from torch.nn import functional as F


def test_agrees_with_the_official_code(golden):
    g = golden("wmse_a")
    (z,) = g.inputs("z")
    loss = WMSELoss(g.param("w_size"), g.param("w_iter"), g.param("eps"))
    value = loss(*z, permutations=g["in_permutations"])
    value.backward()
    g.check("out_loss", value)
    g.check("grad_z", z.grad)
    parts = [
        torch.stack([whiten(z[:, part]) for part in order.split(12)])
        for order in g["in_permutations"]
    ]
    g.check("out_whitened", torch.stack(parts), rtol=1e-9)


def test_whitened_rows_have_mean_zero_and_unit_covariance():
    x = torch.randn(40, 5, dtype=torch.float64) @ torch.randn(5, 5, dtype=torch.float64) + 3
    y = whiten(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(torch.cov(y.T), torch.eye(5, dtype=torch.float64))
    # the Cholesky way: the first column is only centred and scaled
    torch.testing.assert_close(y[:, 0], (x[:, 0] - x[:, 0].mean()) / x[:, 0].std())


def test_matches_the_paper():
    """Whitening by the inverse of the factor, then 2 - 2 cos, with a loop over rows."""
    views = torch.randn(2, 9, 3, dtype=torch.float64)
    white = []
    for z in views:
        factor = torch.linalg.cholesky(torch.cov(z.T))
        white.append((torch.linalg.inv(factor) @ (z - z.mean(0)).T).T)
    rows = [2 - 2 * F.cosine_similarity(a, b, dim=0) for a, b in zip(*white, strict=True)]
    value = wmse_loss(list(views), torch.arange(9)[None], w_size=9, eps=0.0)
    torch.testing.assert_close(value, torch.stack(rows).mean())


def test_an_affine_map_of_one_view_costs_nothing_if_triangular():
    """Cholesky whitening undoes lower-triangular maps and shifts."""
    z = torch.randn(16, 4, dtype=torch.float64)
    lower = torch.randn(4, 4, dtype=torch.float64).tril(-1) + torch.eye(4)
    order = torch.arange(16)[None]
    assert wmse_loss([z, z @ lower.T + 1], order, w_size=16, eps=0.0).item() == pytest.approx(
        0, abs=1e-12
    )


def test_agrees_with_lightly():
    lightly = pytest.importorskip("lightly.loss")
    views = torch.randn(2, 8, 3, dtype=torch.float64).float()
    theirs = lightly.WMSELoss(embedding_dim=3, w_size=8, eps=0.0)
    expected = theirs(torch.cat(list(views)))
    value = wmse_loss(list(views), torch.arange(8)[None], w_size=8, eps=0.0)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("eps", [1e-3, 0.5])
def test_constant_features_stay_finite(eps):
    z = torch.ones(16, 4, requires_grad=True)
    value = WMSELoss(16, eps=eps)(z, z * 1)
    value.backward()
    assert value.isfinite()
    assert z.grad.isfinite().all()
    assert value > 1  # collapse is not a minimum


def test_permutations_change_from_call_to_call_and_come_back_with_the_state():
    views = torch.randn(2, 16, 3)
    loss, other = WMSELoss(8), WMSELoss(8)
    first = loss(*views)
    saved = copy.deepcopy(loss.state_dict())
    second = loss(*views)
    assert first != second
    other.load_state_dict(saved)
    assert other(*views) == second
    assert loss.eval()(*views) == loss(*views)


def test_rows_that_do_not_divide_are_spread():
    views = [torch.randn(11, 2, dtype=torch.float64) for _ in range(2)]
    order = torch.arange(11)
    value = wmse_loss(views, order[None], w_size=4, eps=0.0)
    rows = []
    for part in (order[:6], order[6:]):
        a, b = (whiten(view[part]) for view in views)
        rows.append(2 - 2 * F.cosine_similarity(a, b))
    torch.testing.assert_close(value, torch.cat(rows).mean())


def test_wrong_arguments_are_named():
    z = torch.randn(4, 6)
    with pytest.raises(ValueError, match="covariance of 4 rows in 6 dimensions is singular"):
        WMSELoss(eps=0.0)(z, z)
    flat = torch.randn(16, 2).repeat(1, 2)  # two columns twice
    with pytest.raises(ValueError, match="covariance of 16 rows in 5 dimensions is singular"):
        WMSELoss(eps=0.0)(torch.cat([flat, flat[:, :1] * 0], 1), torch.randn(16, 5))
    with pytest.raises(ValueError, match="W-MSE needs at least 2 views, got 1"):
        WMSELoss()(z)
    with pytest.raises(ValueError, match=r"`permutations` must have shape \(iterations, 4\)"):
        WMSELoss()(z, z, permutations=torch.arange(5)[None])
    with pytest.raises(ValueError, match="`w_size` must be at least 1, got 0"):
        WMSELoss(0)
    with pytest.raises(ValueError, match=r"`eps` must lie in \[0, 1\], got 2"):
        WMSELoss(eps=2.0)
