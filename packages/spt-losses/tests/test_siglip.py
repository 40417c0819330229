"""SigLIP against the official code and plain binary cross-entropies."""

import pytest
import torch
from spt_losses import SigLIPLoss, siglip_loss
from torch.nn import functional as F


def test_agrees_with_the_official_code(golden):
    g = golden("siglip_a")
    image, text, log_scale, bias = g.inputs("image", "text", "log_scale", "bias")
    loss = SigLIPLoss()(image, text, log_scale.exp(), bias)
    loss.backward()
    g.check("out_loss", loss)
    g.check("grad_image", image.grad)
    g.check("grad_text", text.grad)
    g.check("grad_log_scale", log_scale.grad)
    g.check("grad_bias", bias.grad)


def test_it_is_a_sum_of_binary_questions():
    x, y = torch.randn(2, 5, 4, dtype=torch.float64)
    logits = 10 * F.normalize(x, dim=1) @ F.normalize(y, dim=1).T - 10
    labels = torch.eye(5, dtype=torch.float64)
    expected = F.binary_cross_entropy_with_logits(logits, labels, reduction="sum") / 5
    torch.testing.assert_close(siglip_loss(x, y), expected)


def test_unpaired_inputs_are_named():
    with pytest.raises(ValueError, match="`feats_i` and `feats_j` must have the same shape"):
        siglip_loss(torch.randn(4, 8), torch.randn(3, 8))
