"""BYOL against the official code and plain cosines."""

import pytest
import torch
from spt_losses import BYOLLoss, byol_loss
from torch.nn import functional as F


def test_agrees_with_the_official_code(golden):
    g = golden("byol_a")
    q1, q2 = g.inputs("q1", "q2")
    z1, z2 = g["in_z1"], g["in_z2"]
    loss = BYOLLoss()(q1, z2) + BYOLLoss()(q2, z1)  # the paper sums the two directions
    loss.backward()
    g.check("out_loss", loss)
    g.check("grad_q1", q1.grad)
    g.check("grad_q2", q2.grad)


def test_it_is_the_distance_of_unit_vectors():
    p, z = torch.randn(2, 7, 4, dtype=torch.float64)
    distance = (F.normalize(p, dim=1) - F.normalize(z, dim=1)).square().sum(1).mean()
    torch.testing.assert_close(byol_loss(p, z), distance)


def test_lengths_do_not_matter():
    p, z = torch.randn(2, 7, 4, dtype=torch.float64)
    torch.testing.assert_close(byol_loss(3 * p, 0.1 * z), byol_loss(p, z))


def test_unpaired_inputs_are_named():
    with pytest.raises(
        ValueError, match=r"`online_pred` and `target_proj` must have the same shape"
    ):
        byol_loss(torch.randn(4, 8), torch.randn(3, 8))
    with pytest.raises(ValueError, match=r"`online_pred` must have shape \(N, D\).*got \(8,\)"):
        byol_loss(torch.randn(8), torch.randn(8))
