"""SimMIM against the official code's values and the mean written out."""

import pytest
import torch
from spt_losses import SimMIMLoss, simmim_loss
from torch.nn import functional as F


def test_agrees_with_the_official_code(golden):
    """The decoder is a 1 x 1 convolution and a pixel shuffle; the mask lies on the patch grid."""
    g = golden("simmim_loss_vit")
    z = g["z"].double().requires_grad_()
    stride = 64 // z.shape[2]
    decoded = F.conv2d(z, g["decoder_weight"].double(), g["decoder_bias"].double())
    value = SimMIMLoss()(F.pixel_shuffle(decoded, stride), g["x"].double(), g["mask"])
    value.backward()
    g.check("loss", value, rtol=1e-7)
    g.check("grad_z", z.grad, rtol=1e-7)


def test_masked_pixels_weigh_the_same_whatever_their_image():
    pred, images = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64)
    mask = torch.tensor([[[1, 1], [1, 0]], [[0, 0], [0, 1]]])
    error = (pred - images).abs()
    parts = [error[0, :, :2], error[0, :, 2:, :2], error[1, :, 2:, 2:]]
    expected = sum(part.sum() for part in parts) / sum(part.numel() for part in parts)
    torch.testing.assert_close(simmim_loss(pred, images, mask), expected)
    fine = mask.repeat_interleave(2, 1).repeat_interleave(2, 2)
    torch.testing.assert_close(simmim_loss(pred, images, fine.bool()), expected)


def test_nothing_masked_is_zero():
    pred = torch.randn(1, 3, 4, 4, requires_grad=True)
    value = simmim_loss(pred, torch.zeros(1, 3, 4, 4), torch.zeros(1, 2, 2))
    value.backward()
    assert value.item() == 0
    assert not pred.grad.any()


def test_wrong_arguments_are_named():
    x = torch.randn(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"`mask` must have shape \(2, h, w\) with sides that"):
        simmim_loss(x, x, torch.ones(2, 3, 3))
    with pytest.raises(ValueError, match="`pred` and `images` must have the same shape"):
        simmim_loss(x, x[:, :2], torch.ones(2, 2, 2))
