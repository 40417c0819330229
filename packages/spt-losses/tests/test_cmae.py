"""CMAE's contrastive term against a plain cross-entropy."""

import pytest
import torch
from spt_losses import CMAEContrastLoss, cmae_contrast_loss
from torch.nn import functional as F


@pytest.mark.parametrize("temperature", [0.07, 1.0])
@pytest.mark.parametrize("chunk_size", [None, 1, 4])
def test_matches_a_plain_cross_entropy(temperature, chunk_size):
    query, key = (torch.randn(6, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    logits = F.normalize(query, dim=1) @ F.normalize(key, dim=1).T / temperature
    expected = F.cross_entropy(logits, torch.arange(6))
    value = CMAEContrastLoss(temperature, chunk_size=chunk_size)(query, key)
    torch.testing.assert_close(value, expected)
    ours, theirs = (torch.autograd.grad(x, query)[0] for x in (value, expected))
    torch.testing.assert_close(ours, theirs)
    value = cmae_contrast_loss(query, key)
    assert torch.autograd.grad(value, key, allow_unused=True)[0] is None


def test_wrong_arguments_are_named():
    x = torch.randn(4, 3)
    with pytest.raises(ValueError, match="`query` and `key` must have the same shape"):
        cmae_contrast_loss(x, x[:3])
    with pytest.raises(ValueError, match="`temperature` must be > 0, got 0"):
        CMAEContrastLoss(0.0)
