"""BEiT's cross-entropy of visual tokens."""

import pytest
import torch
from spt_losses import BEiTLoss, visual_token_loss
from torch.nn import functional as F


def test_is_the_mean_cross_entropy():
    logits, tokens = torch.randn(7, 5, dtype=torch.float64), torch.arange(7) % 5
    total = -sum(row.log_softmax(0)[token] for row, token in zip(logits, tokens, strict=True))
    torch.testing.assert_close(visual_token_loss(logits, tokens), total / 7)
    torch.testing.assert_close(BEiTLoss()(logits, tokens), F.cross_entropy(logits, tokens))


def test_no_place_is_zero_with_a_gradient():
    logits = torch.randn(0, 5, requires_grad=True)
    value = visual_token_loss(logits, torch.zeros(0, dtype=torch.int64))
    value.backward()
    assert value.item() == 0
    assert logits.grad.shape == (0, 5)


def test_huge_logits_stay_finite():
    logits = (1e30 * torch.eye(4)).requires_grad_()
    value = visual_token_loss(logits, torch.tensor([1, 1, 2, 3]))
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


def test_wrong_arguments_are_named():
    logits, tokens = torch.randn(3, 5), torch.tensor([0, 1, 5])
    with pytest.raises(ValueError, match=r"`tokens` must lie in \[0, 5\).* got values from 0 to 5"):
        visual_token_loss(logits, tokens)
    with pytest.raises(TypeError, match="`tokens` must be of dtype torch.int64"):
        visual_token_loss(logits, tokens.float())
    with pytest.raises(
        ValueError, match=r"`logits` must have shape \(M, V\), the predicted places"
    ):
        visual_token_loss(logits[None], tokens)
    with pytest.raises(ValueError, match=r"`tokens` must have shape \(3,\), got \(2,\)"):
        visual_token_loss(logits, tokens[:2])
