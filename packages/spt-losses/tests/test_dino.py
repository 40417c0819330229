"""DINO against the official codes' steps, equation 3 in plain loops, and lightly."""

import numpy as np
import pytest
import torch
from spt_losses import DINOv1Loss, dino_loss
from torch.nn import functional as F


def reference(student, teacher, temperature):
    """Equation 3, averaged over pairs of different crops and over rows, with loops."""
    total, pairs = 0.0, 0
    for t in range(len(teacher)):
        for s in range(len(student)):
            if s == t:
                continue
            pairs += 1
            for row, goal in zip(student[s] / temperature, teacher[t], strict=True):
                log_p = row - np.log(np.exp(row).sum())
                total -= (goal * log_p).sum() / len(student[s])
    return total / pairs


@pytest.mark.parametrize(("students", "teachers"), [(2, 2), (6, 2), (2, 1), (1, 3)])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_matches_the_paper(students, teachers, temperature):
    student = torch.randn(students, 3, 5, dtype=torch.float64)
    teacher = torch.randn(teachers, 3, 5, dtype=torch.float64).softmax(-1)
    value = dino_loss(student, teacher, temperature=temperature)
    expected = reference(student.numpy(), teacher.numpy(), temperature)
    assert value.item() == pytest.approx(expected, rel=1e-12)


def test_agrees_with_the_official_code_step_by_step(golden):
    g = golden("dino_a")
    loss = DINOv1Loss(g.param("student_temp"), g.param("center_momentum"))
    student, teacher = g.inputs("student", "teacher")
    values, centers = [], []
    for logits, theirs, temp in zip(student, teacher, g["mid_teacher_temp"], strict=True):
        targets = loss.softmax_center_teacher(theirs, temp.item())
        values.append(loss(logits, targets))
        centers.append(loss.center.clone()[None])
    sum(values).backward()
    g.check("out_loss", torch.stack(values))
    g.check("buf_center_after", torch.stack(centers))
    g.check("grad_student", student.grad)
    assert teacher.grad is None


def test_agrees_with_dinov2_which_sums_over_all_pairs(golden):
    g = golden("dinov2_dino_a")
    loss = DINOv1Loss(g.param("student_temp"), g.param("center_momentum"))
    student, teacher = g.inputs("student", "teacher")
    settings = {"skip_same_view": False, "reduction": "sum"}
    values, probabilities, centers = [], [], []
    for logits, theirs in zip(student, teacher, strict=True):
        centers.append(torch.zeros(1, 10) if loss.center is None else loss.center.clone()[None])
        probabilities.append(loss.softmax_center_teacher(theirs, g.param("teacher_temp")))
        values.append(dino_loss(logits, probabilities[-1], **settings))
    g.check("out_loss", torch.stack(values))
    g.check("out_teacher_probs", torch.stack(probabilities))
    g.check("buf_center_before_each_step", torch.stack(centers).double())
    g.check("buf_center_final", loss.center[None])
    g.check("grad_student", torch.autograd.grad(sum(values), student)[0])
    targets = loss.sinkhorn_knopp_teacher(teacher[0], g.param("teacher_temp"))
    value = dino_loss(student[0], targets, **settings)
    g.check("out_sinkhorn_teacher_probs", targets)
    g.check("out_sinkhorn_loss", value)
    g.check("grad_student__sinkhorn", torch.autograd.grad(value, student)[0])


@pytest.mark.parametrize(("skip", "name"), [(False, ""), (True, "_ignore_diagonal")])
def test_agrees_with_dinov3(golden, skip, name):
    g = golden("dinov3_dino_a")
    student, teacher = g.inputs("student", "teacher")
    targets = DINOv1Loss().sinkhorn_knopp_teacher(teacher, g.param("teacher_temp"))
    value = dino_loss(student, targets, skip_same_view=skip)
    g.check("out_teacher_probs", targets)
    g.check(f"out_loss{name}", value)
    suffix = "__ignore_diagonal" if skip else ""
    g.check(f"grad_student{suffix}", torch.autograd.grad(value, student)[0])


def test_agrees_with_lightly():
    lightly = pytest.importorskip("lightly.loss")
    student, teacher = torch.randn(4, 5, 8), torch.randn(2, 5, 8)
    theirs = lightly.DINOLoss(output_dim=8, student_temp=0.1)
    expected = theirs(teacher_out=list(teacher), student_out=list(student), teacher_temp=0.04)
    ours = DINOv1Loss()
    value = ours(student, ours.softmax_center_teacher(teacher, 0.04))
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(ours.center, theirs.center.flatten())


def test_a_student_that_is_the_teacher_pays_the_entropy_alone():
    """With sharp targets and equal crops the loss tends to 0, its least value."""
    crops = 50 * F.one_hot(torch.arange(4), 6).float().expand(2, -1, -1)
    assert dino_loss(crops, crops.softmax(-1)).item() == pytest.approx(0, abs=1e-6)
    assert dino_loss(crops.flip(1), crops.softmax(-1)) > 100


@pytest.mark.parametrize("temperature", [1e-5, 1e5])
def test_extreme_temperatures_stay_finite(temperature):
    loss = DINOv1Loss(temperature)
    student, teacher = torch.randn(3, 4, 8, requires_grad=True), torch.randn(2, 4, 8)
    value = loss(student, loss.softmax_center_teacher(teacher, temperature))
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


def test_it_can_be_differentiated_once():
    z = torch.randn(2, 4, 3, requires_grad=True)
    loss = dino_loss(z, z.softmax(-1))
    with pytest.raises(RuntimeError, match="can be differentiated once"):
        torch.autograd.grad(loss, z, create_graph=True)


def test_wrong_arguments_are_named():
    crop, two = torch.zeros(1, 3, 4), torch.zeros(2, 3, 4)
    with pytest.raises(ValueError, match="no pair of different crops: one crop of the student"):
        dino_loss(crop, crop)
    with pytest.raises(ValueError, match=r"`student_logits` must have shape \(S, B, K\)"):
        dino_loss(two[0], two)
    with pytest.raises(ValueError, match=r"agree in B and K, got \(2, 3, 4\) and \(2, 2, 4\)"):
        dino_loss(two, two[:, :2])
    with pytest.raises(ValueError, match="`reduction` must be 'mean' or 'sum', got 'max'"):
        dino_loss(two, two, reduction="max")
    with pytest.raises(ValueError, match="`temperature` must be > 0, got 0"):
        dino_loss(two, two, temperature=0.0)
    with pytest.raises(ValueError, match="`temperature_student` must be > 0, got -1"):
        DINOv1Loss(-1.0)
