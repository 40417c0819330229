"""V-JEPA's error against the official code, with masks of different size."""

import pytest
import torch
from spt_losses import VJEPALoss, vjepa_loss


@pytest.mark.parametrize("exponent", [1, 2])
def test_agrees_with_the_official_code(golden, exponent):
    g = golden("vjepa_loss")
    pred, target = ([g[f"{name}{mask}"].double() for mask in (0, 1)] for name in "zh")
    g.check(f"loss_exp{exponent}", VJEPALoss(exponent)(pred, target))


def test_one_mask_is_the_mean_absolute_error():
    pred, target = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(vjepa_loss(pred, target), (pred - target).abs().mean())


def test_masks_weigh_the_same_whatever_their_size():
    one, two = torch.randn(2, 1, 3), torch.randn(2, 7, 3)
    value = vjepa_loss([one, two], [one * 0, two * 0])
    torch.testing.assert_close(value, (one.abs().mean() + two.abs().mean()) / 2)


def test_wrong_arguments_are_named():
    x = torch.randn(2, 3, 4)
    with pytest.raises(ValueError, match="a tensor for each mask, got 2 and 1"):
        vjepa_loss([x, x], x)
    with pytest.raises(ValueError, match="`exponent` must be > 0, got 0"):
        VJEPALoss(0.0)
    with pytest.raises(ValueError, match=r"`pred` must have shape \(N, M, D\)"):
        vjepa_loss(x[0], x[0])
