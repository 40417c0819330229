"""I-JEPA's targets and loss against the official code."""

import pytest
import torch
from spt_losses import IJEPALoss, ijepa_loss, ijepa_targets
from torch.nn import functional as F


def test_agrees_with_the_official_code(golden):
    g = golden("ijepa_targets_loss")
    targets = ijepa_targets(g["h"].double(), g["masks_pred"])
    g.check("targets", targets)
    z = g["z"].double().requires_grad_()
    value = IJEPALoss()(z, targets)
    value.backward()
    g.check("loss", value)
    g.check("grad_z", z.grad)


@pytest.mark.parametrize("beta", [0.5, 1.0, 4.0])
def test_matches_the_formula(beta):
    pred, target = 3 * torch.randn(2, 2, 3, 4, dtype=torch.float64)
    total = 0.0
    for error in (pred - target).abs().flatten().tolist():
        total += 0.5 * error**2 / beta if error < beta else error - 0.5 * beta
    assert ijepa_loss(pred, target, beta=beta).item() == pytest.approx(total / pred.numel())


def test_targets_come_block_by_block_from_normalised_tokens():
    h = torch.randn(2, 6, 4)
    masks = torch.tensor([[[0, 5], [1, 2]], [[3, 3], [4, 0]]])
    targets = ijepa_targets(h, masks)
    normal = F.layer_norm(h, (4,))
    expected = [normal[0, [0, 5]], normal[1, [1, 2]], normal[0, [3, 3]], normal[1, [4, 0]]]
    torch.testing.assert_close(targets, torch.stack(expected))


def test_wrong_arguments_are_named():
    x = torch.randn(2, 6, 4)
    with pytest.raises(
        ValueError, match=r"`masks` must have shape \(blocks, 2, M\), got \(1, 3, 2\)"
    ):
        ijepa_targets(x, torch.zeros(1, 3, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="`beta` must be > 0, got -1"):
        IJEPALoss(-1.0)
    with pytest.raises(ValueError, match="`pred` and `target` must have the same shape"):
        ijepa_loss(x, x[:1])
