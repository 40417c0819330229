"""SimSiam against the official code."""

import pytest
import torch
from spt_losses import SimSiamLoss, simsiam_loss


def test_agrees_with_the_official_code(golden):
    g = golden("simsiam_a")
    p1, p2, z1, z2 = g.inputs("p1", "p2", "z1", "z2")
    loss = SimSiamLoss()(p1, p2, z1, z2)
    loss.backward()
    g.check("out_loss", loss)
    g.check("grad_p1", p1.grad)
    g.check("grad_p2", p2.grad)
    assert z1.grad is None
    assert z2.grad is None


def test_unpaired_inputs_are_named():
    z = torch.randn(4, 8)
    with pytest.raises(ValueError, match=r"same shape, got \(3, 8\) and \(4, 8\)"):
        simsiam_loss(z[:3], z, z, z)
