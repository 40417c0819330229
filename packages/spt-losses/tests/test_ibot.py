"""iBOT's patch loss against the official codes and the weights written out."""

import pytest
import torch
from spt_losses import DINOv1Loss, dino_loss, ibot_patch_loss, iBOTPatchLoss
from torch.nn import functional as F


def test_agrees_with_the_official_code_step_by_step(golden):
    """The class-token term is DINO's; patches are predicted within a crop."""
    g = golden("ibot_a")
    cls = DINOv1Loss(g.param("student_temp"), g.param("center_momentum"))
    patch = iBOTPatchLoss(g.param("student_temp"), g.param("center_momentum2"))
    names = ["student_cls", "student_local_cls", "student_patch"]
    leaves = g.inputs(*names)
    out = {name: [] for name in ("loss", "cls", "patch", "center", "center2")}
    for step, (large, small, patches) in enumerate(zip(*leaves, strict=True)):
        temp, patch_temp = (g[f"mid_teacher_{kind}temp"][step].item() for kind in ("", "patch_"))
        teacher = g["in_teacher_cls"][step], g["in_teacher_patch"][step].double()
        of_cls = cls(torch.cat([large, small]), cls.softmax_center_teacher(teacher[0], temp))
        targets = patch.softmax_center_teacher(teacher[1], patch_temp)  # all patches move it
        mask = g["in_mask"][step].flatten(0, 1).flatten(1)  # (crops * N, P)
        rows = (x.flatten(0, 1)[mask] for x in (patches, targets))
        of_patch = patch(*rows, mask)
        for name, value in (("loss", of_cls + of_patch), ("cls", of_cls), ("patch", of_patch)):
            out[name].append(value)
        out["center"].append(cls.center.clone()[None])
        out["center2"].append(patch.center.clone()[None, None])
    for name in ("loss", "cls", "patch"):
        g.check(f"out_{name}", torch.stack(out[name]))
    g.check("buf_center_after", torch.stack(out["center"]))
    g.check("buf_center2_after", torch.stack(out["center2"]))
    sum(out["loss"]).backward()
    for name, leaf in zip(names, leaves, strict=True):
        g.check(f"grad_{name}", leaf.grad)


def test_agrees_with_dinov2_whose_masked_patches_move_the_centre(golden):
    g = golden("dinov2_ibot_patch_a")
    loss = iBOTPatchLoss(g.param("student_temp"), g.param("center_momentum"))
    (student,) = g.inputs("student")
    temp, mask, teacher = g.param("teacher_temp"), g["in_mask"], g["in_teacher"]
    values, centers = [], []
    for step in range(3):
        centers.append(torch.zeros(7) if loss.center is None else loss.center.clone())
        m = mask[step]
        targets = loss.softmax_center_teacher(teacher[step][m], temp)
        values.append(loss(student[step][m], targets, m))
    g.check("out_loss", torch.stack(values))
    g.check("buf_center_before_each_step", torch.stack(centers).double()[:, None, None])
    g.check("buf_center_final", loss.center[None, None])
    g.check("grad_student", torch.autograd.grad(sum(values), student)[0])
    targets = loss.sinkhorn_knopp_teacher(teacher[0][mask[0]], temp, num_samples=16)
    value = loss(student[0][mask[0]], targets, mask[0])
    g.check("out_sinkhorn_teacher_probs", targets)
    g.check("out_sinkhorn_loss", value)
    g.check("grad_student__sinkhorn", torch.autograd.grad(value, student)[0])


def test_agrees_with_lightly():
    lightly = pytest.importorskip("lightly.loss")
    mask = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]]).bool()
    student, teacher = torch.randn(2, 7, 5)
    theirs = lightly.IBOTPatchLoss(output_dim=5, teacher_temp=0.06, student_temp=0.1)
    expected = theirs(teacher, student, mask=mask[:, None])
    ours = iBOTPatchLoss()
    value = ours(student, ours.softmax_center_teacher(teacher, 0.06), mask)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(ours.center, theirs.center.value.flatten())


def test_each_image_weighs_the_same():
    mask = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 1, 0]]).bool()
    student = torch.randn(4, 5, dtype=torch.float64)
    teacher = torch.randn(4, 5, dtype=torch.float64).softmax(-1)
    per_patch = F.cross_entropy(student / 0.1, teacher, reduction="none")
    expected = (per_patch[:3].mean() + per_patch[3]) / 3
    torch.testing.assert_close(ibot_patch_loss(student, teacher, mask), expected)
    plain = ibot_patch_loss(student, teacher)
    torch.testing.assert_close(plain, per_patch.mean())
    # one image with everything masked is the mean over patches, as for the image-level loss
    whole = ibot_patch_loss(student, teacher, torch.ones(1, 4, dtype=torch.bool))
    torch.testing.assert_close(whole, plain)
    level = dino_loss(student[None], teacher[None], skip_same_view=False)
    torch.testing.assert_close(plain, level)


def test_nothing_masked_is_zero_with_a_gradient():
    student = torch.randn(0, 5, requires_grad=True)
    for mask in (None, torch.zeros(3, 4, dtype=torch.bool)):
        value = ibot_patch_loss(student, torch.randn(0, 5), mask)
        value.backward()
        assert value.item() == 0
        assert student.grad.shape == (0, 5)


def test_compiles_without_a_graph_break():
    mask = torch.tensor([[1, 1, 0], [0, 0, 0], [0, 1, 0]]).bool()
    student, teacher = torch.randn(2, 3, 5)
    compiled = torch.compile(ibot_patch_loss, fullgraph=True, backend="aot_eager")
    value = compiled(student, teacher.softmax(-1), mask)
    torch.testing.assert_close(value, ibot_patch_loss(student, teacher.softmax(-1), mask))


def test_wrong_arguments_are_named():
    rows, mask = torch.randn(3, 5), torch.ones(2, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="`mask` hides 4 patches; 3 rows were given"):
        ibot_patch_loss(rows, rows, mask)
    with pytest.raises(TypeError, match="`mask` must be of dtype torch.bool, got torch.float32"):
        ibot_patch_loss(rows, rows, mask.float())
    with pytest.raises(ValueError, match=r"`mask` must have shape \(N, P\)"):
        ibot_patch_loss(rows, rows, mask[0])
    with pytest.raises(ValueError, match=r"must have shape \(M, K\), the masked patches alone"):
        ibot_patch_loss(rows[None], rows[None])
    with pytest.raises(ValueError, match="same shape"):
        ibot_patch_loss(rows, rows[:2])
    with pytest.raises(ValueError, match="`student_temp` must be > 0, got 0"):
        iBOTPatchLoss(0.0)
