"""The whole objectives of DINOv2 and DINOv3 against their official training steps."""

import pytest
import torch
from spt_losses import DINOv2Loss, gram_loss, koleo_loss


def patch_targets(loss, g, mask, sinkhorn):
    masked = g["in_teacher_patch"].flatten(0, 1)[mask]
    make = loss.sinkhorn_knopp_teacher if sinkhorn else loss.softmax_center_teacher
    return make(masked, g.param("teacher_temp"))


def terms(loss, g, leaves, sinkhorn, features):
    """The value for stored logits of all crops."""
    cls, local, patch = leaves
    mask = g["in_mask"].flatten(0, 1)
    make = loss.dino_loss
    make = make.sinkhorn_knopp_teacher if sinkhorn else make.softmax_center_teacher
    return loss(
        torch.cat([cls, local]),
        make(g["in_teacher_cls"], g.param("teacher_temp")),
        patch.flatten(0, 1)[mask],
        patch_targets(loss.ibot_loss, g, mask, sinkhorn),
        mask,
        features,
    )


@pytest.mark.parametrize("kind", ["", "sinkhorn"])
def test_agrees_with_the_official_training_step(golden, kind):
    g = golden("dinov2_total_a")
    weights = [g.param(f"{name}_weight") for name in ("dino", "ibot")]
    loss = DINOv2Loss(*weights, koleo_loss_weight=g.param("koleo_weight")).double()
    for part, name in ((loss.dino_loss, "center"), (loss.ibot_loss, "center_patch")):
        part.center = g[f"in_{name}"].clone()
    names = ["student_cls", "student_local_cls", "student_patch"]
    leaves = g.inputs(*names)
    value = terms(loss, g, leaves, kind == "sinkhorn", leaves[0])
    value.backward()
    g.check("out_loss" + (f"_{kind}" if kind else ""), value)
    for name, leaf in zip(names, leaves, strict=True):
        g.check(f"grad_{name}" + (f"__{kind}" if kind else ""), leaf.grad)
    if not kind:
        g.check("buf_center_after", loss.dino_loss.center)
        g.check("buf_center_patch_after", loss.ibot_loss.center)


def test_with_the_gram_term_it_is_the_objective_of_dinov3(golden):
    g = golden("dinov3_total_a")
    loss = DINOv2Loss(koleo_loss_weight=g.param("koleo_weight"))
    names = ["student_cls", "student_local_cls", "student_patch"]
    more = ["student_features", "student_patch_features"]
    leaves, (features, patches) = g.inputs(*names), g.inputs(*more)
    value = terms(loss, g, leaves, True, features)
    gram = gram_loss(patches.flatten(0, 1), g["in_gram_teacher_patch_features"].flatten(0, 1))
    g.check("out_gram_loss", gram)
    g.check("out_koleo_loss", sum(koleo_loss(crop) for crop in features) / 2)
    value = value + g.param("gram_weight") * gram
    value.backward()
    g.check("out_loss", value)
    for name, leaf in zip(names + more, [*leaves, features, patches], strict=True):
        g.check(f"grad_{name}", leaf.grad)


def test_terms_that_are_not_given_are_left_out():
    loss = DINOv2Loss(dino_loss_weight=2.0)
    student, teacher = torch.randn(3, 4, 5), torch.randn(2, 4, 5).softmax(-1)
    only_cls = loss(student, teacher)
    torch.testing.assert_close(only_cls, 2 * loss.dino_loss(student, teacher))
    with_features = loss(student, teacher, student_features=student[:2])
    spread = sum(koleo_loss(crop) for crop in student[:2])
    torch.testing.assert_close(with_features, only_cls + 0.1 * spread)


def test_accumulation_reaches_both_centres():
    loss = DINOv2Loss(accumulate=2)
    for part in (loss.dino_loss, loss.ibot_loss):
        part.softmax_center_teacher(torch.ones(4, 3), 0.1)
        assert not part.center.any()
        part.softmax_center_teacher(torch.ones(4, 3), 0.1)
        torch.testing.assert_close(part.center, torch.full((3,), 0.1))
    assert set(loss.state_dict()) == {"dino_loss.center", "ibot_loss.center"}


def test_wrong_arguments_are_named():
    student, teacher = torch.randn(3, 4, 5), torch.randn(2, 4, 5).softmax(-1)
    with pytest.raises(ValueError, match="`student_patch_logits` and `teacher_patch_probs`, or"):
        DINOv2Loss()(student, teacher, student[0])
    with pytest.raises(ValueError, match="`ibot_loss_weight` must be >= 0, got -1"):
        DINOv2Loss(ibot_loss_weight=-1.0)
