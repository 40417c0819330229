"""AIM's next-patch error against the formula's values."""

import pytest
import torch
from spt_losses import AIMLoss, aim_loss, patch_pixels


def test_agrees_with_the_formula(golden):
    g = golden("aim_loss_formula")
    pred, target = g["pred"].double(), g["target_norm_pix"]
    plain = aim_loss(pred, target, norm_pix_loss=False)
    g.check("loss_causal_pixel_mean", plain)
    prefix = aim_loss(pred, target, g["prefix_length"], norm_pix_loss=False)
    g.check("loss_prefix_pixel_mean_over_patches", prefix)
    images = AIMLoss(patch_size=8)(pred, g["imgs"].double(), g["prefix_length"])
    torch.testing.assert_close(images, prefix, rtol=1e-9, atol=0)


def test_only_patches_after_the_prefix_count():
    pred, target = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    lengths = torch.tensor([1, 4, 3])
    errors = []
    for n, k in enumerate(lengths.tolist()):
        errors += [(pred[n, j] - target[n, j + 1]).square().mean() for j in range(4) if j + 1 >= k]
    value = aim_loss(pred, target, lengths, norm_pix_loss=False)
    torch.testing.assert_close(value, torch.stack(errors).mean())


def test_targets_are_standardised_in_float32_whatever_the_prediction():
    images = 0.5 + 1e-3 * torch.rand(1, 3, 8, 8)
    pred = torch.zeros(1, 4, 48, dtype=torch.bfloat16)
    value = AIMLoss(4)(pred, images)
    goal = patch_pixels(images.double(), 4)[:, 1:]
    goal = (goal - goal.mean(-1, keepdim=True)) / (goal.var(-1, keepdim=True) + 1e-6).sqrt()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(goal.square().mean().item(), rel=1e-3)


def test_wrong_arguments_are_named():
    x = torch.randn(2, 4, 3)
    with pytest.raises(ValueError, match="`pred` must hold at least 2 patches"):
        aim_loss(x[:, :1], x[:, :1])
    with pytest.raises(ValueError, match="`prefix_length` must hold 2 integers, got shape"):
        aim_loss(x, x, torch.ones(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="`prefix_length` must hold 2 integers"):
        aim_loss(x, x, torch.ones(2))
    with pytest.raises(ValueError, match="`patch_size` must be at least 1, got 0"):
        AIMLoss(0)
