"""MaskFeat's targets and loss against the official code."""

import pytest
import torch
from spt_losses import MaskFeatLoss, hog_targets, maskfeat_loss


def test_agrees_with_the_official_code(golden):
    g = golden("maskfeat_targets")
    images, mask = g["image"].float() / 256, g["mask"].bool()
    targets = hog_targets(images)
    torch.testing.assert_close(targets, g["targets_all"], rtol=0, atol=1e-5)
    torch.testing.assert_close(targets[mask], g["targets_masked"], rtol=0, atol=1e-5)
    pred = torch.zeros(2, 16, 108)
    pred[mask] = g["pred"]
    value = MaskFeatLoss()(pred, images, mask)
    assert value.item() == pytest.approx(g["loss"].item(), rel=1e-6)
    torch.testing.assert_close(maskfeat_loss(pred, targets, g["mask"]), value)


def test_the_target_of_a_patch_is_that_of_its_pixels():
    """Away from the border of a patch, so with an image whose borders are flat."""
    image = torch.zeros(1, 2, 16, 16)
    image[:, :, 10:14, 2:6] = torch.rand(1, 2, 4, 4)  # inside the second row, first column
    targets = hog_targets(image, 8, bins=4, cell=4)
    assert targets.shape == (1, 4, 2 * 4 * 4)
    alone = hog_targets(image[:, :, 8:, :8], 8, bins=4, cell=4)
    torch.testing.assert_close(targets[:, 2], alone[:, 0])
    assert not targets[:, [0, 1, 3]].any()


def test_wrong_arguments_are_named():
    images = torch.rand(1, 3, 16, 16)
    with pytest.raises(ValueError, match="`patch_size` 12 must be a multiple of `cell` 8"):
        hog_targets(images, 12)
    with pytest.raises(
        ValueError, match="`patch_size` 32 must be a multiple of `cell` 8 and divide"
    ):
        hog_targets(images, 32)
    with pytest.raises(ValueError, match="`pred` and `target` must have the same shape"):
        MaskFeatLoss()(torch.zeros(1, 1, 4), images, torch.ones(1, 1))
    with pytest.raises(ValueError, match=r"`mask` must have shape \(1, 1\)"):
        MaskFeatLoss()(torch.zeros(1, 1, 108), images, torch.ones(1, 2))
    with pytest.raises(ValueError, match="`bins` must be at least 1, got 0"):
        MaskFeatLoss(bins=0)
