"""The teacher's centre: what moves it, when, and where it is kept."""

import pytest
import torch
from spt_losses import DINOv1Loss, iBOTPatchLoss


def logits(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("make", [DINOv1Loss, iBOTPatchLoss])
def test_accumulated_batches_are_one_large_batch(make):
    """Also of unequal size: the centre is the mean over rows."""
    whole, parts = make(), make(accumulate=3)
    for _ in range(3):
        x = logits(2, 9, 5)
        expected = whole.softmax_center_teacher(x, 0.1)
        pieces = [parts.softmax_center_teacher(p, 0.1) for p in x.split([2, 3, 4], dim=1)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), expected)
        torch.testing.assert_close(parts.center, whole.center)


def test_a_short_last_window_can_be_closed():
    parts, direct = DINOv1Loss(accumulate=4), DINOv1Loss()
    x = logits(2, 3, 5)
    parts.update_center(x)
    assert not parts.center.any()
    parts.apply_center_update()
    parts.apply_center_update()  # nothing waits any more
    direct.update_center(x)
    torch.testing.assert_close(parts.center, direct.center)


def test_the_centre_follows_the_rule_from_zero():
    loss, x = DINOv1Loss(center_momentum=0.9), logits(2, 4, 3)
    assert loss.softmax_center_teacher(x, 0.5).allclose((x / 0.5).softmax(-1))
    torch.testing.assert_close(loss.center, 0.1 * x.mean((0, 1)))
    again = loss.softmax_center_teacher(x, 0.5, update_centers=False)
    torch.testing.assert_close(again, ((x - loss.center) / 0.5).softmax(-1))
    torch.testing.assert_close(loss.center, 0.1 * x.mean((0, 1)))


def test_the_centre_is_saved_and_moves_with_the_module():
    loss, fresh, x = DINOv1Loss(), DINOv1Loss(), logits(2, 4, 3)
    assert "center" not in loss.state_dict()  # no prototypes are known yet
    loss.update_center(x)
    fresh.load_state_dict(loss.state_dict())
    torch.testing.assert_close(fresh.center, loss.center)
    assert dict(loss.named_buffers())["center"] is loss.center
    assert loss.float().center.dtype == torch.float32
    loss.load_state_dict(fresh.state_dict())  # into one that has a centre already


def test_no_rows_move_nothing():
    loss = DINOv1Loss()
    loss.update_center(logits(2, 4, 3))
    before = loss.center.clone()
    loss.update_center(torch.empty(0, 3))
    assert torch.equal(loss.center, before)


def test_targets_are_probabilities_without_gradient_in_float32():
    loss = DINOv1Loss()
    x = torch.randn(2, 4, 6, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        targets = [loss.softmax_center_teacher(x, 1e-3), loss.sinkhorn_knopp_teacher(x, 1e-3)]
    for target in targets:
        assert target.dtype == torch.float32
        assert not target.requires_grad
        assert target.shape == x.shape
        torch.testing.assert_close(target.sum(-1), torch.ones(2, 4))


def test_wrong_arguments_are_named():
    loss = DINOv1Loss()
    loss.update_center(logits(2, 4, 3))
    with pytest.raises(ValueError, match="centre has 3 prototypes; the teacher's logits have 4"):
        loss.update_center(logits(2, 4, 4))
    with pytest.raises(ValueError, match="`teacher_temp` must be > 0, got 0"):
        loss.softmax_center_teacher(logits(2, 4, 3), 0.0)
    with pytest.raises(TypeError, match="`teacher_logits` must be of a floating-point dtype"):
        loss.update_center(torch.ones(2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"`center_momentum` must lie in \[0, 1\], got 1.5"):
        DINOv1Loss(center_momentum=1.5)
