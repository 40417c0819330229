"""MSN against the official code, its parts, and equation 1 written plainly."""

import math

import pytest
import torch
from spt_losses import MSNLoss, msn_loss
from torch.nn import functional as F


def official(golden):
    g = golden("msn_a")
    settings = {name: g.param(name) for name in ("temperature", "sharpen")}
    return g, g.inputs("anchors", "prototypes"), g["in_targets"], settings


@pytest.mark.parametrize(
    ("rounds", "prefix", "suffix"), [(3, "", ""), (0, "nosinkhorn_", "__nosinkhorn")]
)
def test_agrees_with_the_official_code(golden, rounds, prefix, suffix):
    g, (anchors, prototypes), targets, settings = official(golden)
    loss = MSNLoss(**settings, sinkhorn_iterations=rounds)
    value = loss(anchors, targets, prototypes)
    value.backward()
    g.check(f"out_{prefix}loss", value)
    g.check(f"grad_anchors{suffix}", anchors.grad)
    g.check(f"grad_prototypes{suffix}", prototypes.grad)
    cross_entropy = msn_loss(
        anchors, targets, prototypes, **settings, sinkhorn_iterations=rounds, memax_weight=0.0
    )
    g.check(f"out_{prefix}cross_entropy", cross_entropy)


def test_the_spreading_terms_agree_with_the_official_code(golden):
    g, (anchors, prototypes), targets, settings = official(golden)

    def value(**weights):
        return msn_loss(anchors, targets, prototypes, **settings, **weights)

    with_spread, without = value(), value(memax_weight=0.0)
    g.check("out_me_max", with_spread - without)
    g.check("grad_anchors__me_max_only", torch.autograd.grad(with_spread - without, anchors)[0])
    g.check("out_entropy", value(memax_weight=0.0, ent_weight=1.0) - value(memax_weight=0.0))


def test_matches_the_paper():
    """Equation 1 without Sinkhorn, term by term."""
    anchors, targets = (
        torch.randn(6, 4, dtype=torch.float64),
        torch.randn(3, 4, dtype=torch.float64),
    )
    prototypes = torch.randn(5, 4, dtype=torch.float64)
    q = F.normalize(prototypes, dim=1)
    p = (F.normalize(anchors, dim=1) @ q.T / 0.1).softmax(1)
    sharp = (F.normalize(targets, dim=1) @ q.T / 0.1).softmax(1) ** 4
    sharp = sharp / sharp.sum(1, keepdim=True)
    entropy_of_mean = -(p.mean(0) * p.mean(0).log()).sum()
    crosses = -sum((sharp[i % 3] * p[i].log()).sum() for i in range(6)) / 6
    value = msn_loss(anchors, targets, prototypes, memax_weight=2.0, sinkhorn_iterations=0)
    torch.testing.assert_close(value, crosses + 2 * (math.log(5) - entropy_of_mean))


def test_label_smoothing_mixes_in_the_uniform_distribution():
    anchors, targets = torch.randn(2, 3, 4, dtype=torch.float64)
    prototypes = torch.randn(5, 4, dtype=torch.float64)
    smooth = 0.8 * torch.eye(5, dtype=torch.float64) + 0.2 / 5  # labels of the prototypes
    q = F.normalize(prototypes, dim=1)
    p, t = ((F.normalize(x, dim=1) @ q.T / 0.1).softmax(1) @ smooth for x in (anchors, targets))
    sharp = t**4 / (t**4).sum(1, keepdim=True)
    expected = -(sharp * p.log()).sum(1).mean()
    settings = {"memax_weight": 0.0, "sinkhorn_iterations": 0, "label_smoothing": 0.2}
    torch.testing.assert_close(msn_loss(anchors, targets, prototypes, **settings), expected)


def test_agrees_with_lightly():
    lightly = pytest.importorskip("lightly.loss")
    anchors, targets, prototypes = torch.randn(6, 4), torch.randn(3, 4), torch.randn(5, 4)
    theirs = lightly.MSNLoss(temperature=0.1, sinkhorn_iterations=3)
    expected = theirs(anchors, targets, prototypes, target_sharpen_temperature=0.25)
    value = msn_loss(anchors, targets, prototypes)
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("temperature", [1e-4, 1e4])
def test_extreme_temperatures_stay_finite(temperature):
    anchors, prototypes = (
        torch.randn(6, 4, requires_grad=True),
        torch.randn(5, 4, requires_grad=True),
    )
    value = MSNLoss(temperature)(anchors, torch.randn(3, 4), prototypes)
    value.backward()
    assert value.isfinite()
    assert anchors.grad.isfinite().all()
    assert prototypes.grad.isfinite().all()


def test_collapse_is_not_a_minimum():
    """Equal anchors pay log K through the mean's entropy; spread ones pay nothing."""
    prototypes = torch.eye(4)
    spread, collapsed = torch.eye(4), torch.eye(4)[:1].repeat(4, 1)
    low, high = (msn_loss(x, x, prototypes, temperature=0.05) for x in (spread, collapsed))
    assert low < 1e-3
    assert high > 1


def test_wrong_arguments_are_named():
    x, prototypes = torch.randn(6, 4), torch.randn(5, 4)
    with pytest.raises(ValueError, match="whole views of the N `targets`, got 6 and 4 rows"):
        msn_loss(x, x[:4], prototypes)
    with pytest.raises(ValueError, match="`anchors` must have width 3"):
        msn_loss(x, x, prototypes[:, :3])
    with pytest.raises(ValueError, match="`sharpen` must be > 0, got 0"):
        MSNLoss(sharpen=0.0)
    with pytest.raises(ValueError, match=r"`label_smoothing` must lie in \[0, 1\], got 2"):
        MSNLoss(label_smoothing=2.0)
    with pytest.raises(ValueError, match="`memax_weight` must be >= 0, got -1"):
        MSNLoss(memax_weight=-1.0)
