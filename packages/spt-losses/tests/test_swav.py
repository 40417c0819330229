"""SwAV against the official code with crops and queues, and equation 2 written out."""

import pytest
import torch
from spt_losses import SwAVLoss, sinkhorn_knopp, swapped_prediction_loss, swav_loss
from torch import nn
from torch.nn import functional as F


def tangential(grad, rows):
    """What is left of a gradient at unit rows once their length may not change."""
    length = rows.norm(dim=1, keepdim=True)
    unit = rows / length
    return (grad - (grad * unit).sum(-1, keepdim=True) * unit) / length


@pytest.mark.parametrize("name", ["swav_a", "swav_multicrop_a"])
def test_agrees_with_the_official_code(golden, name):
    g = golden(name)
    z, prototypes = g.inputs("z", "prototypes")
    loss = SwAVLoss(g.param("temperature"), g.param("sinkhorn_iterations"), g.param("epsilon"))
    value = loss(z[0, 0], z[0, 1], prototypes, crops=list(z[0, 2:]))
    value.backward()
    g.check("out_loss", value[None])
    g.check("grad_z", z.grad)
    expected = tangential(g["grad_prototypes__unit_rows"][0], g["in_prototypes"])
    torch.testing.assert_close(prototypes.grad, expected, rtol=1e-9, atol=1e-12)


def test_a_queue_agrees_with_the_official_code(golden):
    """One queue per large crop, used once it is full; new rows enter after the loss."""
    g = golden("swav_queue_a")
    z, prototypes = g.inputs("z", "prototypes")
    loss = SwAVLoss()
    values = []
    for step in range(4):
        before = g["buf_queue_after"][step - 1] if step else g["in_queue"]
        queues = list(before) if before[:, -1].any() else None
        values.append(loss(z[step, 0], z[step, 1], prototypes, queues))
    sum(values).backward()
    g.check("out_loss", torch.stack(values))
    g.check("grad_z", z.grad)
    total = g["grad_prototypes__unit_rows"].sum(0)
    expected = tangential(total, g["in_prototypes"])
    torch.testing.assert_close(prototypes.grad, expected, rtol=1e-9, atol=1e-12)


def test_matches_the_paper():
    """Cross-entropies of each view with the other's codes, averaged as in Algorithm 1."""
    a, b = torch.randn(2, 6, 4, dtype=torch.float64)
    prototypes = torch.randn(3, 4, dtype=torch.float64)
    c = F.normalize(prototypes, dim=1)
    scores = [F.normalize(x, dim=1) @ c.T for x in (a, b)]
    codes = [sinkhorn_knopp(s, 0.05) for s in scores]
    expected = F.cross_entropy(scores[0] / 0.1, codes[1]) + F.cross_entropy(
        scores[1] / 0.1, codes[0]
    )
    torch.testing.assert_close(swav_loss([a, b], prototypes), expected / 2)


def test_agrees_with_lightly():
    lightly = pytest.importorskip("lightly.loss")
    views, prototypes = torch.randn(4, 6, 8), torch.randn(5, 8)
    c = F.normalize(prototypes, dim=1)
    scores = [F.normalize(x, dim=1) @ c.T for x in views]
    expected = lightly.SwaVLoss()(scores[:2], scores[2:])
    torch.testing.assert_close(swav_loss(list(views), prototypes), expected.squeeze())


def test_prototypes_are_left_as_they_are():
    prototypes = nn.Linear(4, 5, bias=False)
    before = prototypes.weight.detach().clone()
    SwAVLoss()(*torch.randn(2, 6, 4), prototypes).backward()
    assert torch.equal(prototypes.weight, before)
    # and only their direction matters
    longer = nn.Parameter(before * torch.rand(5, 1).add(0.5))
    a, b = torch.randn(2, 6, 4)
    torch.testing.assert_close(SwAVLoss()(a, b, longer), SwAVLoss()(a, b, before))


def test_small_crops_predict_and_are_not_predicted():
    a, b, crop = torch.randn(3, 6, 4, dtype=torch.float64)
    prototypes = torch.randn(5, 4, dtype=torch.float64)
    c = F.normalize(prototypes, dim=1)
    scores = [F.normalize(x, dim=1) @ c.T for x in (a, b, crop)]
    loss = SwAVLoss()
    codes = [loss.sinkhorn(s) for s in scores[:2]]
    pairs = [(1, 0), (2, 0), (0, 1), (2, 1)]
    expected = sum(loss.swapped_prediction(scores[s], codes[q]) for s, q in pairs) / 4
    torch.testing.assert_close(loss(a, b, prototypes, crops=[crop]), expected)


def test_the_prediction_has_the_gradient_of_its_value():
    scores = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    codes = torch.rand(4, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: swapped_prediction_loss(s, codes), (scores,))


@pytest.mark.parametrize("temperature", [1e-4, 1e4])
def test_extreme_temperatures_stay_finite(temperature):
    a, b = torch.randn(2, 6, 4)
    a.requires_grad_()
    value = SwAVLoss(temperature, epsilon=temperature)(a, b, torch.randn(5, 4))
    value.backward()
    assert value.isfinite()
    assert a.grad.isfinite().all()


def test_wrong_arguments_are_named():
    z, prototypes = torch.randn(6, 4), torch.randn(5, 4)
    with pytest.raises(ValueError, match="SwAV needs at least 2 views"):
        swav_loss([z], prototypes)
    with pytest.raises(
        ValueError, match=r"`projections\[1\]` must have width 4, got shape \(6, 3\)"
    ):
        swav_loss([z, z[:, :3]], prototypes)
    with pytest.raises(ValueError, match=r"`queues` must have width 4, got shape \(6, 3\)"):
        swav_loss([z, z], prototypes, queues=z[:, :3])
    with pytest.raises(ValueError, match=r"one per assigned view \(2\), got 3"):
        swav_loss([z, z], prototypes, queues=[z, z, z])
    with pytest.raises(ValueError, match=r"same shape, got \(6, 4\) and \(5, 4\)"):
        swav_loss([z, z[:5]], prototypes)
    with pytest.raises(ValueError, match="`epsilon` must be > 0, got 0"):
        SwAVLoss(epsilon=0.0)
