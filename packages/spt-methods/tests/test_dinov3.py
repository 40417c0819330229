"""DINOv3 against the official code's values: positions, the whole objective, and its two phases."""

from pathlib import Path

import lightning as pl
import numpy as np
import pytest
import torch
from spt_losses import DINOv2Loss, GramLoss, gram_loss
from spt_methods import GramAnchoring, Module, forward, methods
from spt_methods.backbones import Tokens
from spt_methods.backbones.rope import DINOv3Rope
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

GOLDEN = Path(__file__).parent / "golden"
TINY = {"n_prototypes": 7, "projector_hidden_dim": 16, "projector_bottleneck_dim": 8,
        "drop_path_rate": 0.0, "image_size": 32, "encoder_kwargs": {
            "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 2}}  # fmt: skip


def official(name):
    with np.load(GOLDEN / name) as file:
        return {k: torch.tensor(file[k]) for k in file.files if file[k].dtype.kind != "U"}


def crops(n=4, large=32, small=16):
    generator = torch.Generator().manual_seed(0)
    sizes = [large, large, small, small]
    images = [torch.rand(n, 3, s, s, generator=generator) for s in sizes]
    names = ["global_0", "global_1", "local_0", "local_1"]
    return {name: {"image": x} for name, x in zip(names, images, strict=True)}


def build(**kwargs):
    torch.manual_seed(0)
    return methods.DINOv3("vit_tiny_patch16_dinov3_qkvb", **{**TINY, **kwargs}).train()


def test_the_positions_of_the_official_code():
    arrays = official("dinov3_rope_tables.npz")
    rope = DINOv3Rope(32)
    for name, grid in (("14x14", (14, 14)), ("10x6", (10, 6))):
        sin, cos = rope(grid).double().chunk(2, dim=1)
        torch.testing.assert_close(sin, arrays[f"sin_{name}"], rtol=0, atol=2e-6)
        torch.testing.assert_close(cos, arrays[f"cos_{name}"], rtol=0, atol=2e-6)


def test_the_augmented_positions_of_the_official_code():
    arrays = official("dinov3_rope_augment.npz")
    rope = DINOv3Rope(32, shift=0.5, jitter=1.5, rescale=2.0).train()
    scales = (arrays["jitter_hw"] * arrays["rescale"]).tolist()
    rope._draw_changes = lambda: (scales, arrays["shift_hw"].tolist())
    sin, cos = rope((10, 6)).double().chunk(2, dim=1)
    torch.testing.assert_close(sin, arrays["sin"], rtol=0, atol=5e-6)
    torch.testing.assert_close(cos, arrays["cos"], rtol=0, atol=5e-6)


def test_changes_of_positions_are_drawn_in_their_ranges_and_in_training_alone():
    rope = DINOv3Rope(8, shift=0.5, jitter=1.5, rescale=2.0)
    drawn = torch.tensor([[*scales, *shifts] for scales, shifts in
                          (rope._draw_changes() for _ in range(2000))]).log1p()  # fmt: skip
    scales, shifts = drawn[:, :2].expm1().log(), drawn[:, 2:].expm1()
    assert scales.abs().max() < np.log(3.0)
    assert shifts.abs().max() < 0.5
    # sums of two uniform logarithms: variances add
    variance = (np.log(1.5) ** 2 + np.log(2.0) ** 2) / 3
    assert scales.var(0).tolist() == pytest.approx([variance] * 2, rel=0.1)
    assert shifts.var(0).tolist() == pytest.approx([0.25 / 3] * 2, rel=0.1)
    assert not torch.equal(rope.train()((2, 2)), rope((2, 2)))
    assert torch.equal(rope.eval()((2, 2)), DINOv3Rope(8)((2, 2)))
    with pytest.raises(ValueError, match="`head_dim` must be a multiple of 4, got 6"):
        DINOv3Rope(6)
    with pytest.raises(ValueError, match="`rescale` must be >= 1, got 0.5"):
        DINOv3Rope(8, rescale=0.5)


def test_named_encoders_are_timms_but_for_the_augmentation():
    module = build()
    images = torch.rand(2, 3, 32, 48)
    encoder = module.backbone.student
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    encoder.eval()
    torch.testing.assert_close(encoder.vit(images), encoder(images).embedding)
    encoder.train()
    assert not torch.allclose(encoder(images).embedding, encoder.vit(images), rtol=1e-3, atol=1e-4)
    assert encoder.num_prefix_tokens == 5  # the class token and four registers
    assert {k.split(".")[0] for k in encoder.state_dict()} == {"vit", "rope", "mask_token"}


class Lookup(nn.Module):
    """A student and a teacher that return what is given, whatever they see."""

    def __init__(self, student, teacher):
        super().__init__()
        self.outputs = {"student": student, "teacher": teacher}

    @property
    def student(self):
        return self

    def grid_of(self, images):
        return 2, 3

    def forward_student(self, *_, **__):
        return self.outputs["student"]

    def forward_teacher(self, *_, **__):
        return self.outputs["teacher"]


def test_the_whole_objective_of_the_official_code():
    arrays = official("dinov3_total_a.npz")
    inputs = {k.removeprefix("in_"): v for k, v in arrays.items() if k.startswith("in_")}
    differentiated = [k.removeprefix("grad_") for k in arrays if k.startswith("grad_")]
    for key in differentiated:
        inputs[key].requires_grad_()
    mask = inputs["mask"].flatten(0, 1)
    features = inputs["student_features"].flatten(0, 1)
    patches = inputs["student_patch_features"].flatten(0, 1)
    student = Tokens(features, features[:, None], patches, (2, 3))
    logits = [inputs["student_cls"].flatten(0, 1), inputs["student_local_cls"].flatten(0, 1)]

    class GramTeacher(nn.Module):
        refreshes = 1

        def forward(self, images, grid):
            assert grid == (2, 3)
            return inputs["gram_teacher_patch_features"].flatten(0, 1)

    module = Module(
        forward=forward.dinov3,
        backbone=Lookup(student, student),
        projector=Lookup(torch.cat(logits), inputs["teacher_cls"].flatten(0, 1)),
        patch_projector=Lookup(
            inputs["student_patch"].flatten(0, 1)[mask], inputs["teacher_patch"].flatten(0, 1)[mask]
        ),
        masking=lambda size, grid: mask,
        sinkhorn=True,
        dinov2_loss=DINOv2Loss(),
        gram_teacher=GramTeacher(),
        gram_loss=GramLoss(),
        gram_loss_weight=2.0,
    )
    batch = {f"global_{i}": {"image": torch.zeros(3, 3, 8, 8)} for i in range(2)}
    batch |= {f"local_{i}": {"image": torch.zeros(3, 3, 4, 4)} for i in range(3)}
    state = module(batch, "fit")
    torch.testing.assert_close(state["loss"], arrays["out_loss"], rtol=1e-10, atol=0)
    torch.testing.assert_close(state["loss_gram"], arrays["out_gram_loss"], rtol=1e-10, atol=0)
    state["loss"].backward()
    for key in differentiated:
        torch.testing.assert_close(inputs[key].grad, arrays[f"grad_{key}"], rtol=1e-9, atol=1e-11)


def test_masks_and_heads_are_those_of_dinov3():
    module = build()
    state = module(crops(), "fit")
    # four of eight crops, at the upper edges of four strata of 0.1 ... 0.5, of 16 patches
    assert sorted(state["mask"].sum(1).tolist()) == [0, 0, 0, 0, 3, 4, 6, 8]
    assert module.projector.student.last_layer.gain is None
    assert module.patch_projector is not module.projector
    assert "loss_gram" not in state  # not before its step


class Watch(pl.Callback):
    def __init__(self):
        self.teachers, self.anchors, self.losses = [], [], []

    def on_train_batch_start(self, trainer, module, *_):
        self.teachers.append(weight_of(module.backbone.teacher))

    def on_train_batch_end(self, trainer, module, outputs, *_):
        self.losses.append("loss_gram" in outputs)
        self.anchors.append(weight_of(module.gram_teacher.encoder.backbone))


def weight_of(encoder):
    return encoder.vit.blocks[0].attn.qkv.weight.detach().clone()


def test_gram_teachers_are_taken_at_their_steps(tmp_path):
    optim = {"optimizer": {"type": "SGD", "lr": 0.1}, "scheduler": None}
    module = build(gram_start_step=2, gram_update_every=2, gram_max_updates=1, optim=optim,
                   ema_decay_start=0.9, ema_decay_end=0.9)  # fmt: skip
    rows = [{k: {"image": v["image"][i % 4]} for k, v in crops().items()} for i in range(16)]
    watch = Watch()
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        callbacks=[watch],
    )  # fmt: skip
    trainer.fit(module, DataLoader(rows, batch_size=2))
    assert watch.losses == [False] * 2 + [True] * 6
    first, second = watch.teachers[2], watch.teachers[4]  # after two and after four steps
    assert not torch.equal(first, second)
    for step, expected in enumerate([first, first, second, second, second, second], start=2):
        assert torch.equal(watch.anchors[step], expected), step
    assert all(not p.requires_grad for p in module.gram_teacher.parameters())
    assert not module.gram_teacher.encoder.backbone.training
    with pytest.raises(ValueError, match="got 0, 0 and 1"):
        GramAnchoring(0, 0, 1)


def test_the_gram_teacher_sees_its_own_crops_and_is_resampled_to_the_students_grid():
    module = build()
    module.gram_teacher.refresh(module.backbone.teacher)
    large = [F.interpolate(crops()[f"global_{i}"]["image"], size=64) for i in range(2)]
    own = {f"gram_{i}": {"image": x} for i, x in enumerate(large)}
    shown, seen = [], []
    module.gram_teacher.encoder.backbone.register_forward_hook(lambda m, i, o: shown.append(o))
    module.backbone.student.register_forward_hook(lambda m, i, o: seen.append(o))
    state = module({**crops(), **own}, "fit")
    maps = shown[0].patches.mT.unflatten(2, (8, 8))
    anchor = F.interpolate(maps, (4, 4), mode="bicubic", align_corners=False).flatten(2).mT
    torch.testing.assert_close(state["loss_gram"], gram_loss(seen[0].patches, anchor))
    one = {"gram_0": own["gram_0"]}
    with pytest.raises(ValueError, match=r"for each of the 2 'global...', got 1"):
        module({**crops(), **one}, "fit")


def test_encoders_without_a_class_token_are_refused_and_gram_anchoring_can_be_left_out():
    pooled = VisionTransformer(img_size=16, patch_size=8, embed_dim=24, depth=1, num_heads=2,
                               num_classes=0, class_token=False, global_pool="avg")  # fmt: skip
    with pytest.raises(ValueError, match=r"got VisionTransformer with `global_pool='avg'`"):
        methods.DINOv3(pooled)
    module = build(gram_start_step=None)
    assert not hasattr(module, "gram_teacher")
    assert len(module.method_callbacks()) == 2
