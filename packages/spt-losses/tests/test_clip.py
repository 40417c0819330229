"""CLIP against the official code; its learnable scale."""

import math

import pytest
import torch
from spt_losses import CLIPLoss, LogitScale, clip_loss
from torch.nn import functional as F


def test_agrees_with_the_official_code(golden):
    g = golden("clip_a")
    image, text, log_scale = g.inputs("image", "text", "log_scale")
    loss = CLIPLoss()(image, text, logit_scale=log_scale.exp())
    loss.backward()
    g.check("out_loss", loss)
    g.check("grad_image", image.grad)
    g.check("grad_text", text.grad)
    g.check("grad_log_scale", log_scale.grad)


@pytest.mark.parametrize("chunk_size", [1, 2, 5, 100])
def test_chunks_change_nothing(chunk_size):
    x, y = (torch.randn(5, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    whole = clip_loss(x, y)
    parts = clip_loss(x, y, chunk_size=chunk_size)
    torch.testing.assert_close(parts, whole)
    wanted = torch.autograd.grad(whole, [x, y])
    torch.testing.assert_close(torch.autograd.grad(parts, [x, y]), wanted)


def test_the_scale_multiplies():
    x, y = torch.randn(2, 5, 4, dtype=torch.float64)
    logits = 7 * F.normalize(x, dim=1) @ F.normalize(y, dim=1).T
    own = torch.arange(5)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    torch.testing.assert_close(clip_loss(x, y, logit_scale=7.0), expected)
    torch.testing.assert_close(clip_loss(x, y, temperature=1 / 7), expected)


def test_the_learnable_scale_is_capped_and_can_come_back():
    scale = LogitScale(50.0, max_scale=100.0)
    assert scale().item() == pytest.approx(50.0)
    with torch.no_grad():
        scale.log_scale.fill_(math.log(1000.0))
    scale().backward()
    assert scale().item() == pytest.approx(100.0)
    assert scale.log_scale.grad.item() == pytest.approx(100.0)
    assert scale.log_scale.item() == pytest.approx(math.log(1000.0))


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="`feats_i` and `feats_j` must have the same shape"):
        clip_loss(torch.randn(4, 8), torch.randn(3, 8))
    with pytest.raises(ValueError, match="`temperature` must be > 0, got 0"):
        CLIPLoss(0.0)
    with pytest.raises(ValueError, match="`chunk_size` must be at least 1, got 0"):
        CLIPLoss(chunk_size=0)
    with pytest.raises(
        ValueError, match="`max_scale` must be at least `init_scale`, got 1.0 and 2.0"
    ):
        LogitScale(2.0, max_scale=1.0)
