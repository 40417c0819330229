"""The two-view methods against their papers, written out by hand."""

import copy

import pytest
import torch
from spt_methods import methods
from spt_methods.backbones import TeacherStudentWrapper
from torch import nn
from torch.nn import functional as F

IMAGES = torch.rand(2, 6, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
BATCH = {"views": [{"image": IMAGES[0]}, {"image": IMAGES[1]}], "label": torch.arange(6)}


class Encoder(nn.Sequential):
    num_features = 12

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(192, 12), nn.Tanh())


def build(name, **kwargs):
    torch.manual_seed(0)
    return getattr(methods, name)(Encoder(), **kwargs).double().train()


def both(module, head="projector"):
    """Projections of both views, computed part by part."""
    return getattr(module, head)(module.backbone(IMAGES.flatten(0, 1))).chunk(2)


def cosine(a, b):
    return (F.normalize(a, dim=1) * F.normalize(b, dim=1)).sum(1)


def test_byol_sums_both_directions():
    module = build("BYOL", projector_dims=(10, 4), predictor_dims=(8, 4))
    for parameter in module.backbone.teacher.parameters():
        parameter.data += 0.1  # so that teacher and student differ
    student = module.backbone.student(IMAGES.flatten(0, 1))
    teacher = module.backbone.teacher(IMAGES.flatten(0, 1))
    p = module.predictor(module.projector.student(student)).chunk(2)
    t = module.projector.teacher(teacher).chunk(2)
    expected = (2 - 2 * cosine(p[0], t[1])).mean() + (2 - 2 * cosine(p[1], t[0])).mean()
    state = module(BATCH, "fit")
    torch.testing.assert_close(state["loss"], expected)
    torch.testing.assert_close(
        state["embedding"], student
    )  # the paper evaluates the online network
    state["loss"].backward()
    assert all(p.grad is None for p in module.backbone.teacher.parameters())
    assert state["target"].requires_grad is False


def test_simsiam_stops_the_gradient_of_projections():
    module = build("SimSiam", projector_dim=10, predictor_hidden_dim=4)
    z = both(module)
    p = [module.predictor(torch.cat(z)).chunk(2)[i] for i in range(2)]
    expected = -(cosine(p[0], z[1].detach()).mean() + cosine(p[1], z[0].detach()).mean()) / 2
    grads = torch.autograd.grad(expected, list(module.projector.parameters()))
    state = module(BATCH, "fit")
    torch.testing.assert_close(state["loss"], expected)
    found = torch.autograd.grad(state["loss"], list(module.projector.parameters()))
    for a, b in zip(found, grads, strict=True):
        torch.testing.assert_close(a, b)


def test_vicreg_by_its_equations():
    module = build("VICReg", projector_dims=(10, 7))
    x, y = both(module)
    d = x.shape[1]

    def variance(z):
        return F.relu(1 - torch.sqrt(z.var(0) + 1e-4)).mean()

    def covariance(z):
        c = torch.cov(z.T)
        return (c.square().sum() - c.diagonal().square().sum()) / d

    std = (variance(x) + variance(y)) / 2  # the official code halves the two hinges
    expected = 25 * F.mse_loss(x, y) + 25 * std + covariance(x) + covariance(y)
    torch.testing.assert_close(module(BATCH, "fit")["loss"], expected)


def test_barlow_twins_by_its_equation():
    module = build("BarlowTwins", projector_dims=(10, 7))
    a, b = ((z - z.mean(0)) / z.var(0, unbiased=False).add(1e-5).sqrt() for z in both(module))
    c = a.T @ b / len(a)
    off = c - torch.diag(c.diagonal())
    expected = (c.diagonal() - 1).square().sum() + 5.1e-3 * off.square().sum()
    torch.testing.assert_close(module(BATCH, "fit")["loss"], expected)


@pytest.mark.parametrize("name", ["SimCLR", "BarlowTwins", "VICReg"])
def test_the_projectors_batch_norm_sees_all_views_at_once(name):
    module = build(name, projector_dims=(10, 7))
    seen = []
    norm = next(m for m in module.projector if isinstance(m, nn.BatchNorm1d))
    norm.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    module(BATCH, "fit")
    assert seen == [(12, 10)]


def test_heads_are_those_of_the_official_codes():
    def layers(head):
        return [type(m).__name__ + ("" if getattr(m, "bias", 1) is not None else "*") for m in head]

    linear, free, norm, relu = "Linear", "Linear*", "BatchNorm1d", "ReLU"
    byol = build("BYOL", projector_dims=(10, 4), predictor_dims=(8, 4))
    assert layers(byol.predictor) == [linear, norm, relu, free]
    simsiam = build("SimSiam", projector_dim=10, predictor_hidden_dim=4)
    assert layers(simsiam.projector) == [free, norm, relu, free, norm, relu, free, norm + "*"]
    assert layers(simsiam.predictor) == [free, norm, relu, linear]
    barlow = build("BarlowTwins", projector_dims=(10, 7))
    assert layers(barlow.projector) == [free, norm, relu, free]
    vicreg = build("VICReg", projector_dims=(10, 7))
    assert layers(vicreg.projector) == [linear, norm, relu, free]


def test_byol_refuses_heads_that_do_not_meet():
    with pytest.raises(ValueError, match=r"must end alike, got \(10, 4\) and \(8, 3\)"):
        build("BYOL", projector_dims=(10, 4), predictor_dims=(8, 3))


def test_the_teacher_follows_its_rules():
    pair = TeacherStudentWrapper(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout()))
    pair.train()
    assert not pair.teacher.training
    assert not pair.teacher[1].training
    assert not any(p.requires_grad for p in pair.teacher.parameters())
    own = TeacherStudentWrapper(copy.deepcopy(pair.student), teacher_training_mode=True).train()
    assert own.teacher[1].training
    assert not own.teacher[2].training
    assert not own.eval().teacher[1].training


def test_the_coefficient_follows_the_cosine_and_travels():
    pair = TeacherStudentWrapper(
        nn.Linear(2, 2), base_ema_coefficient=0.9, final_ema_coefficient=1.0
    ).train()
    pair.update_ema_coefficient(5, 10)
    assert pair.ema_coefficient.item() == pytest.approx(0.95)
    before, student = pair.teacher.weight.clone(), pair.student.weight.data.add_(1.0)
    pair.update_teacher()
    torch.testing.assert_close(pair.teacher.weight.data, 0.95 * before + 0.05 * student)
    other = TeacherStudentWrapper(nn.Linear(2, 2), base_ema_coefficient=0.5).train()
    other.load_state_dict(pair.state_dict())
    before = other.teacher.weight.clone()
    other.student.weight.data += 1.0
    other.update_teacher()
    torch.testing.assert_close(
        other.teacher.weight.data - before,
        torch.full((2, 2), 0.05 * 1) + 0.05 * (other.student.weight.data - 1.0 - before),
    )


def test_the_ends_of_the_momentum():
    shared = TeacherStudentWrapper(nn.Linear(2, 2), True, 0.0, 0.0)
    assert shared.teacher is shared.student
    copied = TeacherStudentWrapper(nn.Linear(2, 2), True, 0.0, 1.0).train()
    copied.student.weight.data += 1.0
    copied.update_teacher()
    assert torch.equal(copied.teacher.weight, copied.student.weight)
    copied.update_ema_coefficient(10, 10)
    before = copied.teacher.weight.clone()
    copied.student.weight.data += 1.0
    copied.update_teacher()
    assert torch.equal(copied.teacher.weight, before)
    fresh = TeacherStudentWrapper(nn.Linear(2, 2), warm_init=False)
    assert not torch.equal(fresh.teacher.weight, fresh.student.weight)
    with pytest.raises(ValueError, match=r"`base_ema_coefficient` must be in \[0, 1\], got 1.2"):
        TeacherStudentWrapper(nn.Linear(2, 2), base_ema_coefficient=1.2)
