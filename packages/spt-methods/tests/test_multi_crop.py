"""The multi-crop methods against their papers, written out by hand."""

import math

import lightning as pl
import pytest
import torch
from spt_methods import FrozenPrototypes, methods
from spt_methods.methods.swav import CodeQueues
from spt_methods.views import crops_of, encode_crops
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

G = torch.Generator().manual_seed(0)
LARGE = torch.rand(2, 6, 3, 8, 8, generator=G, dtype=torch.float64)
SMALL = torch.rand(3, 6, 3, 4, 4, generator=G, dtype=torch.float64)
LABELS = torch.arange(6)


def batch(large=2, small=3):
    crops = {f"global_{i}": {"image": LARGE[i], "label": LABELS} for i in range(large)}
    return {**crops, **{f"local_{i}": {"image": SMALL[i], "label": LABELS} for i in range(small)}}


class Encoder(nn.Module):
    num_features = 12

    def __init__(self):
        super().__init__()
        self.pool, self.linear = nn.AdaptiveAvgPool2d(2), nn.Linear(12, 12)
        self.sizes = []

    def forward(self, x):
        self.sizes.append(tuple(x.shape))
        return torch.tanh(self.linear(self.pool(x).flatten(1)))


def build(name, **kwargs):
    torch.manual_seed(0)
    return getattr(methods, name)(Encoder(), **kwargs).double().train()


PROTOTYPES = {"n_prototypes": 7, "projector_hidden_dim": 16, "projector_bottleneck_dim": 8}


def images_of(large=2, small=3):
    return [*LARGE[:large], *SMALL[:small]]


def test_crops_of_one_size_go_through_the_encoder_together():
    module = build("DINO", **PROTOTYPES)
    module(batch(), "fit")
    assert module.backbone.student.sizes == [(12, 3, 8, 8), (18, 3, 4, 4)]
    large, small = crops_of({"views": batch()}, "DINO")
    mixed = [small[0], large[0], small[1]]
    out = encode_crops(lambda x: x.mean((1, 2, 3)), mixed)
    for found, crop in zip(out, mixed, strict=True):
        torch.testing.assert_close(found, crop["image"].mean((1, 2, 3)))


def test_dino_by_its_pseudo_code():
    module = build("DINO", **PROTOTYPES)
    with torch.no_grad():
        for parameter in module.backbone.teacher.parameters():
            parameter += 0.1
    module.dino_loss.center = torch.linspace(-1, 1, 7, dtype=torch.float64)
    center = module.dino_loss.center.clone()
    student = [module.projector.student(module.backbone.student(x)) for x in images_of()]
    teacher = [module.projector.teacher(module.backbone.teacher(x)) for x in LARGE]
    total, pairs = 0.0, 0
    for i, t in enumerate(teacher):
        target = ((t - center) / 0.04).softmax(1)  # the first epoch's temperature
        for j, s in enumerate(student):
            if i != j:
                total = total - (target * (s / 0.1).log_softmax(1)).sum(1).mean()
                pairs += 1
    state = module(batch(), "fit")
    torch.testing.assert_close(state["loss"], total / pairs)
    torch.testing.assert_close(
        module.dino_loss.center, 0.9 * center + 0.1 * torch.cat(teacher).mean(0)
    )
    assert "dino_loss.center" in module.state_dict()  # the centre is in the checkpoint
    torch.testing.assert_close(
        state["embedding"], torch.cat([module.backbone.teacher(x) for x in LARGE])
    )
    assert torch.equal(state["label"], LABELS.repeat(2))
    state["loss"].backward()
    teachers = [*module.backbone.teacher.parameters(), *module.projector.teacher.parameters()]
    assert all(p.grad is None for p in teachers)


def test_the_teachers_temperature_ends_with_the_warm_up():
    from spt_methods.methods._temperature import teacher_temperature

    class Fake:
        warmup_temperature_teacher, temperature_teacher = 0.04, 0.07
        warmup_epochs_temperature_teacher = 4
        current_epoch = 0

    found = []
    for Fake.current_epoch in range(6):
        found.append(teacher_temperature(Fake, 0.07))
    assert found == pytest.approx([0.04, 0.05, 0.06, 0.07, 0.07, 0.07])
    assert teacher_temperature(object(), 0.05) == 0.05


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, i):
        return {k: {"image": v["image"][i % 6].float(), "label": 0} for k, v in batch().items()}


@pytest.mark.parametrize(
    ("name", "layer", "kwargs"),
    [
        ("DINO", "projector.student.last_layer", {**PROTOTYPES, "norm_last_layer": False}),
        ("SwAV", "prototypes", {"projector_dims": (8, 4), "n_prototypes": 5,
                                "freeze_prototypes_steps": 3}),
    ],
)  # fmt: skip
def test_prototypes_rest_at_the_start_and_then_move(tmp_path, name, layer, kwargs):
    optim = {"optimizer": {"type": "AdamW", "lr": 0.1, "weight_decay": 0.1}, "scheduler": None}
    module = build(name, optim=optim, **kwargs).float()
    weights = [module.get_submodule(layer).weight.detach().clone()]

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            weights.append(pl_module.get_submodule(layer).weight.detach().clone())

    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        callbacks=[Watch()],
    )  # fmt: skip
    trainer.fit(module, DataLoader(Rows(), batch_size=4))
    still = [torch.equal(weights[0], w) for w in weights]
    assert still == [True] * 4 + [False] * 3  # three steps: an epoch of DINO, `steps` of SwAV
    with pytest.raises(ValueError, match=r"has no submodules \['head'\]"):
        FrozenPrototypes(("head",)).on_train_start(trainer, module)


def sinkhorn(scores, eps=0.05, rounds=3):
    """Algorithm 1 of SwAV's appendix."""
    q = (scores / eps).exp().T
    q = q / q.sum()
    k, n = q.shape
    for _ in range(rounds):
        q = q / q.sum(1, keepdim=True) / k
        q = q / q.sum(0, keepdim=True) / n
    return (q * n).T


@pytest.mark.parametrize("small", [0, 3])
def test_swav_by_its_pseudo_code(small):
    module = build("SwAV", projector_dims=(8, 4), n_prototypes=5)
    features = [module.backbone(x) for x in images_of(2, small)]
    z = F.normalize(module.projector(torch.cat(features)), dim=1).chunk(2 + small)
    c = F.normalize(module.prototypes.weight, dim=1)
    total = 0.0
    for i in range(2):  # codes from the two large crops alone
        q = sinkhorn((z[i] @ c.T).detach())
        others = [z[j] for j in range(2 + small) if j != i]
        total = total - sum((q * (o @ c.T / 0.1).log_softmax(1)).sum(1).mean() for o in others) / (
            len(others)
        )
    before = module.prototypes.weight.detach().clone()
    state = module(batch(2, small), "fit")
    torch.testing.assert_close(state["loss"], total / 2)
    assert torch.equal(module.prototypes.weight, before)  # nothing is rewritten in place
    views = [{"image": x, "label": LABELS} for x in images_of(2, small)]
    torch.testing.assert_close(module(views, "fit")["loss"], state["loss"])


def test_swavs_queues_wait_until_they_are_full_and_travel():
    queues = CodeQueues(8, 4, start_epoch=1)
    z = torch.randn(6, 4), torch.randn(6, 4)
    queues.push(z, 0)
    assert queues.rows(0) is None
    queues.push(z, 1)
    assert queues.rows(1) is None  # six of eight
    queues.push(z, 1)
    first, second = queues.rows(1)
    assert first.shape == (8, 4)
    assert not torch.equal(first, second)
    other = CodeQueues(8, 4, start_epoch=1)
    other.load_state_dict(queues.state_dict())
    assert torch.equal(other.rows(1)[0], first)
    module = build("SwAV", projector_dims=(8, 4), n_prototypes=5, queue_length=6,
                   start_queue_at_epoch=0)  # fmt: skip
    module(batch(), "fit")
    other = {key: {"image": view["image"].flip(0, 2)} for key, view in batch().items()}
    module.eval()
    used = module(other, "fit")["loss"]  # now with the queue in the assignment
    del module.code_queues
    assert not torch.allclose(used, module(other, "fit")["loss"], rtol=1e-3)


def test_swav_needs_two_large_crops():
    module = build("SwAV", projector_dims=(8, 4), n_prototypes=5)
    with pytest.raises(ValueError, match="SwAV assigns codes to two large crops, got 1"):
        module(batch(1), "fit")


def test_lejepa_by_its_equations():
    module = build("LeJEPA", projector_dims=(8, 4), n_slices=16)
    draws = module.lejepa_loss.draws
    state_before = {k: v.clone() for k, v in module.state_dict().items()}
    z = module.projector(torch.cat([module.backbone(x) for x in images_of()])).view(5, 6, 4)
    a = draws.normal(4, 16)
    a = a.double() / a.double().norm(dim=0)
    t = torch.linspace(-3, 3, 33, dtype=torch.float64)  # both halves of the rule
    spread = []
    for view in z:
        projected = view @ a
        real = torch.cos(projected[..., None] * t).mean(0)
        imaginary = torch.sin(projected[..., None] * t).mean(0)
        gauss = (-t.square() / 2).exp()
        integrand = ((real - gauss).square() + imaginary.square()) * gauss
        spread.append(6 * torch.trapezoid(integrand, t, dim=-1).mean())
    spread = torch.stack(spread).mean()  # per view, then the mean
    invariance = (z - z[:2].mean(0)).square().mean()
    module.load_state_dict(state_before)
    state = module(batch(), "fit")
    torch.testing.assert_close(state["sigreg_loss"], spread, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(state["inv_loss"], invariance)
    torch.testing.assert_close(
        state["loss"], 0.98 * invariance + 0.02 * spread, rtol=1e-5, atol=1e-6
    )
    assert math.isfinite(module(batch(2, 0), "fit")["loss"].item())  # small crops may be absent


def vit_module(**kwargs):
    torch.manual_seed(0)
    return methods.DINOv2(
        "vit_tiny_patch16_224", image_size=32, **PROTOTYPES, drop_path_rate=0.0,
        encoder_kwargs={"patch_size": 8, "depth": 2, "embed_dim": 12, "num_heads": 2}, **kwargs,
    ).double().train()  # fmt: skip


def vit_batch():
    generator = torch.Generator().manual_seed(0)
    large = torch.rand(2, 4, 3, 32, 32, generator=generator, dtype=torch.float64)
    small = torch.rand(2, 4, 3, 16, 16, generator=generator, dtype=torch.float64)
    crops = {f"global_{i}": {"image": large[i]} for i in range(2)}
    return {**crops, **{f"local_{i}": {"image": small[i]} for i in range(2)}}


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("balanced", [False, True])
def test_dinov2_by_its_parts(separate, balanced):
    module = vit_module(separate_heads=separate, sinkhorn=balanced)
    with torch.no_grad():
        for parameter in module.backbone.teacher.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    large = torch.cat([vit_batch()[f"global_{i}"]["image"] for i in range(2)])
    mask = module.masking(8, (4, 4))
    module.masking.load_state_dict({"draws": torch.tensor(0)})
    assert 1 <= mask.any(1).sum() <= 4  # half of the crops, if a block is found
    head, patch_head = module.projector, getattr(module, "patch_projector", module.projector)
    student = module.backbone.student(large, mask=mask)
    teacher = module.backbone.teacher(large)
    small = [module.backbone.student(vit_batch()[f"local_{i}"]["image"]).embedding
             for i in range(2)]  # fmt: skip
    s = [*head.student(student.embedding).chunk(2), *(head.student(x) for x in small)]
    t_logits = head.teacher(teacher.embedding)
    patch_logits = patch_head.teacher(teacher.patches[mask])
    if balanced:
        t = sinkhorn(t_logits, 0.04).chunk(2)
        patch_targets = sinkhorn(patch_logits, 0.04)
    else:
        t = (t_logits / 0.04).softmax(1).chunk(2)  # centres start at zero
        patch_targets = (patch_logits / 0.04).softmax(1)
    pairs = [-(t[i] * (s[j] / 0.1).log_softmax(1)).sum(1).mean()
             for i in range(2) for j in range(4) if i != j]  # fmt: skip
    image_term = torch.stack(pairs).mean()
    log_p = (patch_head.student(student.patches[mask]) / 0.1).log_softmax(1)
    weights = (1 / mask.sum(1).clamp(min=1))[mask.nonzero()[:, 0]]
    patch_term = -((patch_targets * log_p).sum(1) * weights).sum() / 8  # over all images
    koleo = 0.0
    for crop in student.embedding.chunk(2):
        x = F.normalize(crop, dim=1)
        nearest = (x @ x.T - 10 * torch.eye(4)).argmax(1)
        distance = (x - x[nearest] + 1e-8).norm(dim=1)
        koleo = koleo - (distance + 1e-8).log().mean()
    state = module(vit_batch(), "fit")
    assert torch.equal(state["mask"], mask)
    torch.testing.assert_close(
        state["loss"], image_term + patch_term + 0.1 * koleo, rtol=1e-6, atol=1e-6
    )


def test_dinov2_masks_the_student_alone_and_runs_heads_on_hidden_patches_alone():
    module = vit_module()
    seen = []
    module.projector.student.register_forward_hook(lambda _, x, __: seen.append(x[0].shape))
    state = module(vit_batch(), "fit")
    assert seen == [(16, 12), (int(state["mask"].sum()), 12)]
    module.eval()
    out = module({"image": vit_batch()["global_0"]["image"]}, "validate")
    torch.testing.assert_close(
        out["embedding"], module.backbone.teacher(vit_batch()["global_0"]["image"]).embedding
    )


def test_unnamed_crops_are_refused():
    module = build("DINO", **PROTOTYPES)
    with pytest.raises(ValueError, match="DINO trains on named crops 'global...'.*got list"):
        module([{"image": LARGE[0]}], "fit")
    with pytest.raises(ValueError, match=r"got \['local_0'\]"):
        module({"local_0": {"image": SMALL[0]}}, "fit")


def test_the_students_stochastic_depth_stays_out_of_the_teacher():
    torch.manual_seed(0)
    module = methods.DINO(
        "vit_tiny_patch16_224", image_size=16, encoder_kwargs={"depth": 2}, **PROTOTYPES,
        drop_path_rate=0.9,
    ).train()  # fmt: skip
    x = torch.rand(8, 3, 16, 16)
    assert torch.equal(module.backbone.forward_teacher(x), module.backbone.forward_teacher(x))
    assert not torch.equal(module.backbone.forward_student(x), module.backbone.forward_student(x))


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
def test_swin_takes_small_crops(name):
    sizes = {"embed_dim": 12, "depths": (1, 1), "num_heads": (1, 2)}
    module = methods.DINO(name, **PROTOTYPES, image_size=64, encoder_kwargs=sizes).train()
    large, small = torch.rand(2, 2, 3, 64, 64), torch.rand(2, 2, 3, 32, 32)
    crops = {f"global_{i}": {"image": x} for i, x in enumerate(large)}
    crops |= {f"local_{i}": {"image": x} for i, x in enumerate(small)}
    module(crops, "fit")["loss"].backward()
    assert all(p.grad is not None for p in module.backbone.student.parameters())


@pytest.mark.parametrize("name", ["DINO", "LeJEPA", "SwAV"])
def test_crops_of_several_sizes_are_embedded_outside_of_training(name):
    settings = {"DINO": PROTOTYPES, "LeJEPA": {"projector_dims": (8, 4)},
                "SwAV": {"projector_dims": (8, 4), "n_prototypes": 6}}  # fmt: skip
    module = build(name, **settings[name]).eval()
    state = module(batch(), "validate")
    assert set(state) == {"embedding", "label"}
    encode = getattr(module.backbone, "teacher", module.backbone)
    torch.testing.assert_close(state["embedding"], torch.cat([encode(x) for x in images_of()]))
    assert torch.equal(state["label"], LABELS.repeat(5))


def test_images_of_two_views_are_of_one_size():
    from spt_methods.views import images_of as images_of_views

    views = [{"image": LARGE[0]}, {"image": SMALL[0]}]
    with pytest.raises(ValueError, match=r"must be of one shape, got \[\(3, 4, 4\), \(3, 8, 8\)\]"):
        images_of_views(views)


def test_dinov2_without_temperatures_has_the_one_of_the_specification():
    sizes = {"patch_size": 4, "depth": 1, "embed_dim": 12, "num_heads": 2}
    module = methods.DINOv2(
        "vit_tiny_patch16_224", **PROTOTYPES, image_size=8, drop_path_rate=0.0, encoder_kwargs=sizes
    ).double()
    for name in ("temperature_teacher", "warmup_temperature_teacher"):
        delattr(module, name)
    seen = []
    for loss in (module.dinov2_loss.dino_loss, module.dinov2_loss.ibot_loss):
        soften = loss.softmax_center_teacher
        loss.softmax_center_teacher = lambda x, tau, soften=soften, **rest: (
            seen.append(tau),
            soften(x, tau, **rest),
        )[1]
    module(batch(), "fit")
    assert seen == [0.04, 0.04]
