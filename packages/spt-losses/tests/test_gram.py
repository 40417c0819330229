"""Gram anchoring against the official code and the matrices written out."""

import pytest
import torch
from spt_losses import GramLoss, gram_loss
from torch.nn import functional as F

VARIANTS = {
    "": {},
    "batch_level": {"img_level": False},
    "remove_neg": {"remove_neg": True},
    "remove_teacher_neg": {"remove_only_teacher_neg": True},
    "no_norm": {"normalize": False},
}


@pytest.mark.parametrize("name", list(VARIANTS))
def test_agrees_with_the_official_code(golden, name):
    g = golden("dinov3_gram_a")
    student, teacher = g.inputs("student", "teacher")
    value = GramLoss(**VARIANTS[name])(student, teacher)
    value.backward()
    g.check("out_loss" + (f"_{name}" if name else ""), value)
    g.check("grad_student" + (f"__{name}" if name else ""), student.grad)
    assert teacher.grad is None


@pytest.mark.parametrize("kind", ["masked", "unmasked"])
def test_chosen_patches_are_one_image(golden, kind):
    """The official options for masked or other patches, at batch level."""
    g = golden("dinov3_gram_a")
    student, teacher = g.inputs("student", "teacher")
    chosen = g["in_mask"] if kind == "masked" else ~g["in_mask"]
    value = gram_loss(student[chosen][None], teacher[chosen][None])
    value.backward()
    g.check(f"out_loss_{kind}_tokens", value)
    g.check(f"grad_student__{kind}_tokens", student.grad)


def test_matches_the_matrices():
    s, t = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    total = 0.0
    for image in range(3):
        a, b = (F.normalize(x[image], dim=1) for x in (s, t))
        for i in range(4):
            for j in range(4):
                total += ((a[i] @ a[j]) - (b[i] @ b[j])) ** 2
    torch.testing.assert_close(gram_loss(s, t), total / (3 * 4 * 4))


def test_a_rotation_costs_nothing():
    x = torch.randn(2, 6, 4, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    assert gram_loss(x @ rotation, x).item() == pytest.approx(0, abs=1e-12)
    assert gram_loss(x.flip(1), x) > 1e-3


def test_wrong_arguments_are_named():
    x = torch.randn(2, 3, 4)
    with pytest.raises(ValueError, match=r"`student` must have shape \(N, P, D\)"):
        gram_loss(x[0], x)
    with pytest.raises(ValueError, match=r"same shape, got \(2, 3, 4\) and \(2, 2, 4\)"):
        gram_loss(x, x[:, :2])
