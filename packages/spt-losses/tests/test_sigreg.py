"""SIGReg against the official code, the integral evaluated another way, and its directions."""

import copy
import math

import numpy as np
import pytest
import torch
from spt_losses import EppsPulley, SlicedEppsPulley, epps_pulley, sigreg_loss


def reference(x, t_max, n_points):
    """N times the weighted squared distance of characteristic functions, both halves of the axis."""
    t = np.linspace(-t_max, t_max, 2 * n_points - 1)
    empirical = np.exp(1j * x[:, :, None] * t).mean(0)
    integrand = np.abs(empirical - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2)
    return len(x) * torch.trapezoid(torch.from_numpy(integrand), torch.from_numpy(t)).numpy()


@pytest.mark.parametrize(("t_max", "n_points"), [(3.0, 17), (5.0, 9), (1.0, 3)])
def test_matches_the_paper(t_max, n_points):
    x = torch.randn(9, 4, dtype=torch.float64) * 2 + 1
    value = EppsPulley(t_max, n_points)(x)
    np.testing.assert_allclose(value, reference(x.numpy(), t_max, n_points), rtol=1e-11)


def test_agrees_with_the_official_code(golden):
    g = golden("sigreg_a")
    (z,) = g.inputs("z")
    rule = {"t_max": g.param("t_max"), "n_points": g.param("n_points")}
    x = z @ g["in_directions"]
    g.check("out_statistic_exact_phi", epps_pulley(x, **rule), rtol=1e-12)
    g.check(
        "out_statistic", epps_pulley(x, **rule), rtol=1e-7
    )  # float32 nodes in the official code
    value = SlicedEppsPulley(9, **rule)(z, g["in_directions"])
    value.backward()
    g.check("out_slicing_loss", value, rtol=1e-7)
    g.check("grad_z__slicing", z.grad, rtol=1e-7)


def test_float32_is_as_good_as_float32_can_be(golden):
    """Cosines of all nodes come from the first node's, one turn after the other."""
    g = golden("sigreg_a")
    z = g["in_z"].float().requires_grad_()
    value = sigreg_loss(z, g["in_directions"].float())
    value.backward()
    g.check("out_slicing_loss", value.double(), rtol=1e-5)
    g.check("grad_z__slicing", z.grad.double(), rtol=1e-5)


def test_collapse_costs_more_than_a_gaussian():
    gaussian = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    loss = SlicedEppsPulley(64).eval()
    values = {
        "gaussian": loss(gaussian),
        "constant": loss(torch.zeros(256, 8)),
        "one dimension": loss(gaussian * torch.eye(8)[0] * math.sqrt(8)),
        "too wide": loss(3 * gaussian),
    }
    assert min(values, key=values.get) == "gaussian"
    assert values["constant"] > 50 * values["gaussian"]


def test_directions_change_from_call_to_call_and_come_back_with_the_state():
    z = torch.randn(16, 5)
    loss, other = SlicedEppsPulley(8), SlicedEppsPulley(8)
    first = loss(z)
    saved = copy.deepcopy(loss.state_dict())
    second = loss(z)
    assert first != second
    other.load_state_dict(saved)
    assert other(z) == second
    assert SlicedEppsPulley(8)(z) == first
    assert SlicedEppsPulley(8, seed=1)(z) != first


def test_evaluation_repeats_and_the_global_state_is_left_alone():
    z = torch.randn(16, 5)
    loss = SlicedEppsPulley(8).eval()
    state = torch.get_rng_state()
    assert loss(z) == loss(z)
    assert torch.equal(torch.get_rng_state(), state)


def test_it_can_be_differentiated_once():
    z = torch.randn(6, 3, requires_grad=True)
    with pytest.raises(RuntimeError, match="can be differentiated once"):
        torch.autograd.grad(SlicedEppsPulley(4)(z), z, create_graph=True)


def test_wrong_arguments_are_named():
    z = torch.randn(6, 3)
    with pytest.raises(ValueError, match=r"`directions` must have shape \(3, K\), got \(4, 2\)"):
        sigreg_loss(z, torch.randn(4, 2))
    with pytest.raises(ValueError, match="`n_points` must be odd and at least 3, got 16"):
        SlicedEppsPulley(n_points=16)
    with pytest.raises(ValueError, match="`t_max` must be > 0, got 0"):
        EppsPulley(t_max=0.0)
    with pytest.raises(ValueError, match="`num_slices` must be at least 1, got 0"):
        SlicedEppsPulley(0)
    with pytest.raises(ValueError, match=r"`x` must have shape \(N, D\)"):
        epps_pulley(z[0])
