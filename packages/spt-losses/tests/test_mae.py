"""MAE's pixels and loss against the official code, and the forms of its class."""

import pytest
import torch
from spt_losses import MAELoss, mae, patch_pixels, standardize_patches
from torch.nn import functional as F


@pytest.mark.parametrize(("norm", "suffix"), [(True, ""), (False, "plain")])
def test_agrees_with_the_official_code(golden, norm, suffix):
    g = golden("mae_a")
    (pred,) = g.inputs("pred")
    loss = MAELoss(g.param("patch_size"), patch_normalize=norm)
    value = loss(pred, g["in_imgs"], g["in_mask"])
    value.backward()
    g.check("out_loss" + (f"_{suffix}" if suffix else ""), value)
    g.check("grad_pred" + (f"__{suffix}" if suffix else ""), pred.grad)
    patches = patch_pixels(g["in_imgs"], g.param("patch_size"))
    assert torch.equal(patches, g["out_patches"])
    torch.testing.assert_close(mae(patches, pred, g["in_mask"], norm_pix_loss=norm), value)


def test_the_order_within_a_patch_is_row_column_channel():
    images = torch.arange(2 * 4 * 4).view(1, 2, 4, 4).float()
    patch = patch_pixels(images, 2)[0, 1]  # first row, second column of patches
    expected = [images[0, c, y, x] for y in (0, 1) for x in (2, 3) for c in (0, 1)]
    assert patch.tolist() == [value.item() for value in expected]


def test_masked_patches_weigh_the_same_whatever_their_image():
    target, pred = torch.randn(2, 2, 3, 5, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1], [0, 0, 1]])
    errors = (target - pred).square().mean(-1)
    expected = (errors[0].sum() + errors[1, 2]) / 4
    torch.testing.assert_close(mae(target, pred, mask), expected)
    torch.testing.assert_close(mae(target, pred, mask.bool()), expected)


@pytest.mark.parametrize("mask_only", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("loss_type", ["mse", "cosine", "smooth_l1", "custom"])
def test_each_form_of_the_class(loss_type, mask_only, reduction):
    images, pred = torch.rand(3, 2, 4, 4), torch.randn(3, 4, 8)
    mask = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 1, 1]])
    loss = MAELoss(2, loss_type, mask_only, patch_normalize=False, reduction=reduction)
    if loss_type == "custom":
        loss.register_custom_loss(lambda pred, goal: (pred - goal).abs().amax(-1))
    goal = patch_pixels(images, 2)
    errors = {
        "mse": ((pred - goal) ** 2).mean(-1),
        "cosine": 1 - F.cosine_similarity(pred, goal, dim=-1),
        "smooth_l1": F.smooth_l1_loss(pred, goal, reduction="none").mean(-1),
        "custom": (pred - goal).abs().amax(-1),
    }[loss_type]
    counted = errors[mask.bool()] if mask_only else errors
    expected = counted.mean() if reduction == "mean" else counted.sum()
    torch.testing.assert_close(loss(pred, images, mask), expected)


def test_targets_are_standardised_in_float32_whatever_the_prediction():
    """A patch of low contrast, whose detail bfloat16 cannot hold."""
    images = 0.5 + 1e-3 * torch.rand(1, 3, 4, 4)
    pred = torch.zeros(1, 1, 48, dtype=torch.bfloat16)
    value = MAELoss(4)(pred, images, torch.ones(1, 1))
    goal = standardize_patches(patch_pixels(images.double(), 4))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(goal.square().mean().item(), rel=1e-3)


def test_predictions_of_some_places_are_compared_with_the_patches_there():
    generator = torch.Generator().manual_seed(0)
    images, pred = (torch.rand(*shape, generator=generator) for shape in ((2, 3, 8, 8), (2, 4, 48)))
    places = torch.tensor([[3, 0], [1, 2]])
    chosen = pred.gather(1, places.unsqueeze(2).expand(-1, -1, 48))
    mask = torch.zeros(2, 4).scatter_(1, places, 1.0)
    loss = MAELoss(4)
    value = loss(chosen, images, torch.ones(2, 2), places=places)
    torch.testing.assert_close(value, loss(pred, images, mask))


def test_a_constant_patch_and_no_masked_patch_stay_finite():
    pred = torch.randn(1, 4, 12, requires_grad=True)
    value = MAELoss(2)(pred, torch.ones(1, 3, 4, 4), torch.zeros(1, 4))
    value.backward()
    assert value.item() == 0
    assert not pred.grad.any()
    value = MAELoss(2)(pred, torch.ones(1, 3, 4, 4), torch.ones(1, 4))
    torch.testing.assert_close(value, pred.square().mean())  # a flat patch's target is 0


def test_wrong_arguments_are_named():
    images, pred, mask = torch.rand(2, 3, 4, 4), torch.randn(2, 4, 12), torch.ones(2, 4)
    loss = MAELoss(2)
    with pytest.raises(ValueError, match=r"`mask` must have shape \(2, 4\), one number per patch"):
        loss(pred, images, mask[:, :3])
    with pytest.raises(ValueError, match=r"`patch_size` 3 must divide the images' sides \(4, 4\)"):
        MAELoss(3)(pred, images, mask)
    with pytest.raises(ValueError, match="`pred` and `the images' patches` must have the same"):
        loss(pred[..., :6], images, mask)
    with pytest.raises(ValueError, match="`loss_type` must be one of .* got 'l3'"):
        MAELoss(2, "l3")
    with pytest.raises(ValueError, match="`reduction` must be 'mean' or 'sum', got 'max'"):
        MAELoss(2, reduction="max")
    with pytest.raises(ValueError, match="needs `register_custom_loss"):
        MAELoss(2, "custom")(pred, images, mask)


def test_values_are_looked_at_on_request():
    images, pred, mask = torch.rand(2, 3, 4, 4), torch.randn(2, 4, 12), torch.ones(2, 4)
    loss = MAELoss(2)
    assert loss(pred, images, mask, debug=True) == loss(pred, images, mask)
    with pytest.raises(ValueError, match="`mask` hides no patch"):
        loss(pred, images, 0 * mask, debug=True)
    with pytest.raises(ValueError, match="`imgs` holds values that are not finite"):
        loss(pred, images / 0, mask, debug=True)
