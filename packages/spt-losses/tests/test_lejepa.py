"""LeJEPA against the official minimal example and its two terms."""

import pytest
import torch
from spt_losses import LeJEPALoss, lejepa_loss, sigreg_loss


def test_agrees_with_the_official_example(golden):
    g = golden("lejepa_a")
    (projections,) = g.inputs("proj")
    rule = {"t_max": g.param("t_max"), "n_points": g.param("n_points")}
    loss = LeJEPALoss(g.param("lamb"), **rule)
    value = loss(projections, directions=g["in_directions"])
    value.backward()
    g.check("out_loss", value, rtol=1e-7)
    g.check("grad_proj", projections.grad, rtol=1e-7)
    invariance, spread = loss.terms(projections, directions=g["in_directions"])
    g.check("out_invariance", invariance, rtol=1e-7)
    g.check("out_sigreg", spread, rtol=1e-7)


def test_the_centre_may_be_that_of_the_global_views():
    """As the paper: views are pulled to the mean of the large crops."""
    views, directions = torch.randn(5, 6, 4, dtype=torch.float64), torch.randn(4, 3)
    value = lejepa_loss(views, directions, lamb=0.0, n_global=2)
    centre = (views[0] + views[1]) / 2
    expected = sum((view - centre).square().mean() for view in views) / 5
    torch.testing.assert_close(value, expected)


def test_the_statistic_is_taken_view_by_view():
    views, directions = torch.randn(3, 6, 4, dtype=torch.float64), torch.randn(4, 5)
    value = lejepa_loss(views, directions, lamb=1.0)
    expected = sum(sigreg_loss(view, directions) for view in views) / 3
    torch.testing.assert_close(value, expected)
    doubled = lejepa_loss(views.repeat(2, 1, 1), directions, lamb=1.0)
    torch.testing.assert_close(doubled, value)  # it does not scale with the number of views


def test_views_may_come_as_a_list():
    views = torch.randn(3, 6, 4)
    loss = LeJEPALoss(num_slices=4).eval()
    assert loss(list(views)) == loss(views)


def test_wrong_arguments_are_named():
    views, directions = torch.randn(3, 6, 4), torch.randn(4, 5)
    with pytest.raises(ValueError, match=r"`n_global` must be in \[1, 3\], .* got 4"):
        lejepa_loss(views, directions, n_global=4)
    with pytest.raises(ValueError, match=r"`lamb` must lie in \[0, 1\], got 2"):
        LeJEPALoss(2.0)
    with pytest.raises(ValueError, match=r"`projections` must have shape \(V, N, D\)"):
        lejepa_loss(views[0], directions)
    with pytest.raises(ValueError, match=r"`projections\[0\]` and `projections\[1\]` must have"):
        LeJEPALoss()([views[0], views[1, :5]])
