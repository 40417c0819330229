"""NEPA's cosine with the next embedding."""

import pytest
import torch
from spt_losses import NEPALoss, nepa_loss
from torch.nn import functional as F


def test_matches_the_published_algorithm():
    pred, embedding = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    total = sum(
        F.cosine_similarity(pred[n, t], embedding[n, t + 1], dim=0)
        for n in range(3)
        for t in range(4)
    )
    torch.testing.assert_close(nepa_loss(pred, embedding), -total / 12)
    assert NEPALoss()(pred, embedding) == nepa_loss(pred, embedding)


def test_the_embedding_and_the_last_output_get_no_gradient():
    pred, embedding = (torch.randn(2, 4, 3, requires_grad=True) for _ in range(2))
    nepa_loss(pred, embedding).backward()
    assert embedding.grad is None
    assert not pred.grad[:, -1].any()
    assert pred.grad[:, :-1].abs().sum(-1).min() > 0


def test_wrong_arguments_are_named():
    x = torch.randn(2, 1, 3)
    with pytest.raises(ValueError, match="`pred` must hold at least 2 tokens"):
        nepa_loss(x, x)
    with pytest.raises(ValueError, match="`pred` and `embedding` must have the same shape"):
        nepa_loss(x, x[:1])
