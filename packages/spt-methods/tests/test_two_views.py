"""The two-view methods against their papers, written out by hand."""

import copy

import pytest
import torch
from spt_methods import backbones, methods
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


HEADS = {
    "SimCLR": {"projector_dims": (10, 7)},
    "BarlowTwins": {"projector_dims": (10, 7)},
    "VICReg": {"projector_dims": (10, 7)},
    "BYOL": {"projector_dims": (10, 4), "predictor_dims": (8, 4)},
    "MoCov3": {"projector_dims": (10, 10, 4), "predictor_hidden_dim": 8},
    "SimSiam": {"projector_dim": 10, "predictor_hidden_dim": 4},
    "NNCLR": {"projector_dims": (10, 10, 4), "predictor_hidden_dim": 8, "queue_length": 16},
    "WMSE": {"projector_dims": (10, 2), "w_size": 6},
}


@pytest.mark.parametrize("name", HEADS)
def test_the_batch_norm_of_heads_sees_all_views_at_once(name):
    module = build(name, **HEADS[name])
    heads = [module.projector, *([module.predictor] if hasattr(module, "predictor") else [])]
    seen = []
    for head in heads:
        for norm in (m for m in head.modules() if isinstance(m, nn.BatchNorm1d)):
            norm.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    module(BATCH, "fit")
    assert seen
    assert set(seen) == {12}


def test_ticos_branches_see_one_view_each():
    """The student the first, the teacher the second, as the pseudo-code; statistics are of one view."""
    module = build("TiCO", projector_dims=(10, 4))
    seen = []
    for pair in (module.projector.student, module.projector.teacher):
        pair[1].register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    module(BATCH, "fit")
    assert seen == [6, 6]


def layers(head):
    """Kinds of the layers; a star stands for a layer without a bias."""
    return [type(m).__name__ + ("" if getattr(m, "bias", 1) is not None else "*") for m in head]


LINEAR, FREE, NORM, RELU = "Linear", "Linear*", "BatchNorm1d", "ReLU"
HIDDEN, HIDDEN_FREE = [LINEAR, NORM, RELU], [FREE, NORM, RELU]


@pytest.mark.parametrize(
    ("name", "head", "expected"),
    [
        ("BYOL", "projector", [*HIDDEN, FREE]),
        ("BYOL", "predictor", [*HIDDEN, FREE]),
        ("SimSiam", "projector", [*HIDDEN_FREE, *HIDDEN_FREE, FREE, NORM + "*"]),
        ("SimSiam", "predictor", [*HIDDEN_FREE, LINEAR]),
        ("BarlowTwins", "projector", [*HIDDEN_FREE, FREE]),
        ("VICReg", "projector", [*HIDDEN, FREE]),
        ("SimCLR", "projector", [*HIDDEN_FREE, FREE, NORM]),
        ("MoCov3", "projector", [*HIDDEN_FREE, *HIDDEN_FREE, FREE, NORM + "*"]),
        ("MoCov3", "predictor", [*HIDDEN_FREE, FREE]),
        ("NNCLR", "projector", [*HIDDEN, *HIDDEN, LINEAR, NORM]),
        ("NNCLR", "predictor", [*HIDDEN, LINEAR]),
        ("WMSE", "projector", [*HIDDEN, LINEAR]),
        ("MoCov2", "projector", [LINEAR, RELU, LINEAR]),
        ("SwAV", "projector", [*HIDDEN, LINEAR]),
        ("TiCO", "projector", [*HIDDEN_FREE, FREE]),
        ("LeJEPA", "projector", [*HIDDEN, *HIDDEN, *HIDDEN, LINEAR]),
        ("VICRegL", "projector", [*HIDDEN, *HIDDEN, FREE]),
        ("VICRegL", "map_projector", [*HIDDEN, *HIDDEN, FREE]),
    ],
)
def test_heads_are_those_of_the_official_codes(name, head, expected):
    with torch.device("meta"):
        encoder = "resnet10t" if name == "VICRegL" else Encoder()
        found = getattr(getattr(methods, name)(encoder, **HEADS.get(name, {})), head)
    assert layers(getattr(found, "student", found)) == expected


def test_the_last_norms_of_heads():
    simclr = build("SimCLR", projector_dims=(10, 7)).projector[-1]
    assert not simclr.bias.requires_grad  # no shift
    assert simclr.weight.requires_grad
    pirl = build("PIRL", num_samples=8, projector_dim=4)
    assert isinstance(pirl.projector, nn.Linear)


def test_the_papers_widths_are_the_defaults():
    def widths(name):
        with torch.device("meta"):
            head = getattr(methods, name)(Encoder()).projector
        head = getattr(head, "student", head)
        return [m.out_features for m in head.modules() if isinstance(m, nn.Linear)]

    assert widths("SwAV") == [2048, 128]
    assert widths("LeJEPA") == [512, 2048, 2048, 512]
    assert widths("WMSE") == [1024, 64]
    assert widths("TiCO") == [2048, 256]
    assert widths("MoCov2") == [2048, 128]
    assert widths("BarlowTwins") == [8192] * 3


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


def shift_teachers(module):
    with torch.no_grad():
        for name in ("backbone", "projector"):
            for parameter in getattr(module, name).teacher.parameters():
                parameter += 0.1


def momentum_parts(module, images):
    return module.projector.teacher(module.backbone.teacher(images))


def test_mocov2_by_its_pseudo_code():
    module = build("MoCov2", projector_dims=(10, 4), queue_length=16)
    shift_teachers(module)
    q = F.normalize(module.projector.student(module.backbone.student(IMAGES[0])), dim=1)
    k = F.normalize(momentum_parts(module, IMAGES[1]), dim=1)
    queue = module.moco_loss.queue.rows.clone()
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], dim=1) / 0.2
    expected = F.cross_entropy(logits, torch.zeros(6, dtype=torch.int64))
    state = module(BATCH, "fit")
    torch.testing.assert_close(state["loss"], expected)
    assert len(state["embedding"]) == len(state["label"]) == 6  # no pass for the embedding alone
    after = module.moco_loss.queue.rows
    torch.testing.assert_close(after[:6], k)  # the keys enter, after the loss
    assert (queue @ k.T).max() < 0.999  # no key of the batch was among the negatives
    assert "moco_loss.queue.rows" in module.state_dict()


def test_mocov3_by_its_pseudo_code():
    module = build("MoCov3", projector_dims=(10, 10, 4), predictor_hidden_dim=8)
    shift_teachers(module)
    images = IMAGES.flatten(0, 1)
    q = module.predictor(module.projector.student(module.backbone.student(images)))
    q1, q2 = F.normalize(q, dim=1).chunk(2)
    k1, k2 = F.normalize(momentum_parts(module, images), dim=1).chunk(2)
    labels = torch.arange(6)
    expected = 2 * 0.2 * (
        F.cross_entropy(q1 @ k2.T / 0.2, labels) + F.cross_entropy(q2 @ k1.T / 0.2, labels)
    )  # fmt: skip
    torch.testing.assert_close(module(BATCH, "fit")["loss"], expected)


def test_mocov3_freezes_a_transformers_patches_and_fixes_its_positions():
    from pathlib import Path

    import numpy as np

    with np.load(Path(__file__).parent / "golden" / "sincos_pos_embed.npz") as file:
        table = torch.tensor(file["mocov3_cls_D64_G7"])
    module = methods.MoCov3(
        "vit_tiny_patch16_224", image_size=28, projector_dims=(8, 8, 4), predictor_hidden_dim=8,
        encoder_kwargs={"patch_size": 4, "embed_dim": 64, "depth": 1, "num_heads": 2},
    )  # fmt: skip
    vit = module.backbone.student
    torch.testing.assert_close(vit.pos_embed[0], table, rtol=0, atol=2e-5)
    frozen = {n for n, p in vit.named_parameters() if not p.requires_grad}
    assert frozen == {"pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert isinstance(module.predictor[-1], nn.BatchNorm1d)  # as the code, for transformers
    assert not module.predictor[-1].affine
    free = methods.MoCov3("vit_tiny_patch16_224", image_size=32, frozen_patches=False)
    assert all(p.requires_grad for p in free.backbone.student.parameters())
    before = copy.deepcopy(vit.state_dict())  # as if trained: a given encoder stays as it is
    given = methods.MoCov3(vit.requires_grad_(True), projector_dims=(8, 4)).backbone.student
    assert all(p.requires_grad for p in given.parameters())
    assert all(torch.equal(before[name], value) for name, value in given.state_dict().items())
    assert isinstance(build("MoCov3").predictor[-1], nn.Linear)


def test_nnclr_by_its_pseudo_code():
    module = build("NNCLR", projector_dims=(10, 10, 4), predictor_hidden_dim=8, queue_length=16)
    z = module.projector(module.backbone(IMAGES.flatten(0, 1)))
    p1, p2 = F.normalize(module.predictor(z), dim=1).chunk(2)
    z1, z2 = F.normalize(z, dim=1).chunk(2)
    support = module.nnclr_loss.queue.rows.clone()
    nn1, nn2 = (support[(v @ support.T).argmax(1)].detach() for v in (z1, z2))
    labels = torch.arange(6)
    expected = (
        F.cross_entropy(nn1 @ p2.T / 0.1, labels) + F.cross_entropy(nn2 @ p1.T / 0.1, labels)
    ) / 2
    state = module(BATCH, "fit")
    torch.testing.assert_close(state["loss"], expected)
    torch.testing.assert_close(module.nnclr_loss.queue.rows[:6], z1.detach())  # after the loss
    assert ((z1 @ support.T).max(1).values < 0.9999).all()  # no neighbour is oneself


def test_tico_follows_its_pseudo_code_and_its_collapse_costs_more_than_spread():
    module = build("TiCO", projector_dims=(10, 4))
    shift_teachers(module)
    z1 = F.normalize(module.projector.student(module.backbone.student(IMAGES[0])), dim=1)
    z2 = F.normalize(momentum_parts(module, IMAGES[1]), dim=1)
    covariance = 0.1 * z1.T @ z1 / 6  # the past is zero
    expected = 1 - (z1 * z2).sum(1).mean() + 8 * ((z1 @ covariance) * z1).sum(1).mean()
    torch.testing.assert_close(module(BATCH, "fit")["loss"], expected)
    torch.testing.assert_close(module.tico_loss.covariance, covariance.detach())

    def settled(z):
        loss = build("TiCO", projector_dims=(10, 4)).tico_loss
        for _ in range(60):
            value = loss(z, z)
        return value

    spread = torch.eye(4, dtype=torch.float64).repeat(3, 1)
    assert settled(torch.ones(12, 4, dtype=torch.float64)) > settled(spread) + 1


def test_wmse_whitens_each_view_alone():
    module = build("WMSE", projector_dims=(10, 2), w_size=6, eps=0.0)
    z = both(module)

    def whitened(x):
        x = x - x.mean(0)
        factor = torch.linalg.cholesky(x.T @ x / 5)
        return torch.linalg.solve_triangular(factor, x.T, upper=False).T

    expected = (2 - 2 * cosine(*map(whitened, z))).mean()
    torch.testing.assert_close(module(BATCH, "fit")["loss"], expected)


def test_pirl_contrasts_both_with_the_memory():
    module = build("PIRL", num_samples=10, projector_dim=4)
    index = torch.tensor([3, 1, 4, 9, 5, 2])
    bank = module.pirl_loss.bank.rows.clone()
    seen = []
    module.patch_projector.register_forward_hook(lambda _, x, out: seen.append((x[0], out)))
    flat = Encoder().double()
    module.backbone = nn.Sequential(nn.AdaptiveAvgPool2d(8), flat)
    state = module({"image": IMAGES[0], "label": torch.arange(6), "sample_idx": index}, "fit")
    features, patches = seen[0]
    assert features.shape == (6, 9, 12)  # nine patches, each encoded alone
    v = F.normalize(module.projector(module.backbone(IMAGES[0])), dim=1)
    total = 0.0
    for rows, weight in ((F.normalize(patches, dim=1), 0.5), (v, 0.5)):
        total = total + weight * F.cross_entropy(rows @ bank.T / 0.07, index)
    torch.testing.assert_close(state["loss"], total)
    moved = F.normalize(0.5 * bank[index] + 0.5 * v, dim=1)
    torch.testing.assert_close(module.pirl_loss.bank.rows[index], moved)
    with pytest.raises(KeyError, match="PIRL remembers every image and needs 'sample_idx'"):
        module({"image": IMAGES[0]}, "fit")


def test_the_jigsaw_cuts_every_cell_once_in_random_order():
    from spt_methods.methods.pirl import Jigsaw

    cells = torch.arange(9.0).view(1, 1, 3, 3).repeat_interleave(10, 2).repeat_interleave(10, 3)
    patches = Jigsaw()(cells.expand(50, 2, -1, -1))
    assert patches.shape == (50, 9, 2, 7, 7)
    inside = patches.flatten(2)
    assert (inside == inside[..., :1]).all()  # no patch crosses a cell
    order = inside[..., 0]
    assert torch.equal(order.sort(1).values, torch.arange(9.0).expand(50, -1))
    assert len(order.unique(dim=0)) > 40
    ramp = torch.arange(900.0).view(1, 1, 30, 30)
    first = Jigsaw(share=1.0)(ramp)[0, :, 0]
    assert torch.equal(first[:, 0, 1] - first[:, 0, 0], torch.ones(9))  # pixels stay neighbours
    assert torch.equal(first[:, 1, 0] - first[:, 0, 0], torch.full((9,), 30.0))
    with pytest.raises(ValueError, match="`grid` must be >= 2"):
        Jigsaw(1)


def test_vicregl_knows_where_places_lie():
    from spt_methods.methods.vicregl import locations_of

    view = {
        "image": torch.zeros(2, 3, 4, 4),
        "GPURandomResizedCrop": {"box": torch.tensor([[0, 0, 8, 8], [4, 2, 4, 8]])},
        "GPURandomHorizontalFlip": {"batch_prob": torch.tensor([False, True])},
    }
    where = locations_of(view, (2, 2))
    assert where[0, :, :, 0].tolist() == [[2, 2], [6, 6]]
    assert where[0, :, :, 1].tolist() == [[2, 6], [2, 6]]
    assert where[1, :, :, 0].tolist() == [[5, 5], [7, 7]]
    assert where[1, :, :, 1].tolist() == [[8, 4], [8, 4]]  # flipped
    on_cpu = {"image": view["image"], "RandomResizedCrop": torch.tensor([[0, 0, 8, 8]] * 2)}
    assert torch.equal(locations_of(on_cpu, (2, 2))[0], where[0])
    with pytest.raises(KeyError, match="needs to know each view's crop: 'locations'"):
        locations_of({"image": view["image"]}, (2, 2))


def test_vicregl_hands_embeddings_maps_and_places_to_its_loss():
    torch.manual_seed(0)
    module = methods.VICRegL(
        "resnet10t", projector_dims=(8, 6), map_dims=(8, 5), num_matches=(2, 1)
    ).train()
    module.eval()
    images = torch.rand(2, 4, 3, 64, 64)
    places = torch.rand(2, 4, 2, 2, 2)
    views = [{"image": x, "locations": w} for x, w in zip(images, places, strict=True)]
    z = [module.projector(module.backbone(x)) for x in images]
    maps = [module.backbone.forward_features(x).flatten(2).mT for x in images]
    maps = [module.map_projector(m.reshape(-1, 512)).view(4, 4, 5) for m in maps]
    expected = module.vicregl_loss(z, maps, list(places))
    torch.testing.assert_close(module(views, "fit")["loss"], expected, rtol=1e-4, atol=1e-5)
    assert module.vicregl_loss.alpha == 0.75


def test_every_family_gives_its_tokens():
    import timm
    from spt_methods.backbones import ViTTokens, tokens_of

    images = torch.rand(2, 3, 64, 64)
    for name, kwargs, shape in (
        ("resnet10t", {}, (2, 4, 512)),
        ("convnext_atto", {}, (2, 4, 320)),
        ("swin_tiny_patch4_window7_224", {"img_size": 64}, (2, 4, 768)),
        ("vit_tiny_patch16_224", {"img_size": 64, "depth": 1}, (2, 16, 192)),
    ):
        model = timm.create_model(name, num_classes=0, **kwargs).eval()
        out = tokens_of(model, images)
        torch.testing.assert_close(out.embedding, model(images))
        assert out.patches.shape == shape
        assert out.grid_size[0] * out.grid_size[1] == shape[1]
        if name.startswith("vit"):
            assert out.prefix.shape == (2, 1, 192)
            torch.testing.assert_close(tokens_of(ViTTokens(model), images).patches, out.patches)
    with pytest.raises(TypeError, match="Encoder does not give its tokens"):
        tokens_of(Encoder(), images)


@pytest.mark.parametrize(
    ("name", "kwargs", "shape", "prefix"),
    [
        ("resnet18", {}, (2, 4, 512), 0),
        ("convnext_tiny", {}, (2, 4, 768), 0),
        ("swin_t", {}, (2, 4, 768), 0),
        ("vit_b_32", {"image_size": 64}, (2, 4, 768), 1),
    ],
)
def test_torchvisions_families_give_their_tokens_too(name, kwargs, shape, prefix):
    images = torch.rand(2, 3, 64, 64)
    model = backbones.from_torchvision(name, **kwargs).eval()
    out = backbones.tokens_of(model, images)
    torch.testing.assert_close(out.embedding, model(images))
    assert out.patches.shape == shape
    assert out.prefix.shape == (2, prefix, shape[2])
    assert out.grid_size == (2, 2)
    if name == "resnet18":
        torch.testing.assert_close(out.patches.mean(1), out.embedding)
    if prefix:
        torch.testing.assert_close(out.prefix[:, 0], out.embedding)


def test_simsiams_predictor_keeps_its_rate(tmp_path):
    import lightning as pl
    from torch.utils.data import DataLoader

    module = build("SimSiam", projector_dim=10, predictor_hidden_dim=4).float()
    rows = [
        {"views": [{"image": a.float()}, {"image": b.float()}]}
        for a, b in zip(*IMAGES, strict=True)
    ]
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=3, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, DataLoader(rows, batch_size=3))
    rates = {g.get("fixed", False): g["lr"] for g in trainer.optimizers[0].param_groups}
    assert rates == {True: pytest.approx(0.05), False: pytest.approx(0.0, abs=1e-9)}


def test_recipes_scale_their_rate_by_their_rule():
    assert methods.SimCLR.paper.rate(4096) == pytest.approx(4.8)
    assert methods.DINOv2.paper.rate(256) == pytest.approx(2e-3)
    assert methods.WMSE.paper.rate(64) == 3e-3
    swav = methods.SwAV.paper.optim(4096)
    assert swav["scheduler"]["end_lr"] == pytest.approx(0.0048)
    assert methods.DINO.paper.optim(1024)["scheduler"]["end_lr"] == 1e-6
    groups = methods.BarlowTwins.paper.optim()["groups"]
    assert 0.2 * groups["bias"]["lr_factor"] == pytest.approx(0.0048)
