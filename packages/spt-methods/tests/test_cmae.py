"""CMAE against the official code's steps, written out in float64."""

import pytest
import torch
from spt_losses import patch_pixels, standardize_patches
from spt_methods import methods
from spt_methods.methods.cmae import PixelShift
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional as F

G = torch.Generator().manual_seed(0)
VIEWS = torch.rand(2, 4, 3, 32, 32, generator=G, dtype=torch.float64)
BATCH = {"views": [{"image": x} for x in VIEWS], "label": torch.arange(4)}
SIZES = {"decoder_embed_dim": 16, "decoder_depth": 1, "feature_decoder_depth": 1,
         "decoder_num_heads": 2, "projector_hidden_dim": 10, "projector_dim": 6}  # fmt: skip


def build(**kwargs):
    torch.manual_seed(0)
    vit = VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3,
                            num_classes=0)  # fmt: skip
    module = methods.CMAE(vit, **{**SIZES, "pixel_shift": 0, **kwargs}).double().train()
    with torch.no_grad():
        for pair in (module.backbone, module.projector):
            for parameter in pair.teacher.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return module


def head(x, layers):
    """Linear, BatchNorm of the batch, ReLU, linear without bias."""
    first, norm, _, last = layers
    x = x @ first.weight.T + first.bias
    x = (x - x.mean(0)) / (x.var(0, unbiased=False) + norm.eps).sqrt() * norm.weight + norm.bias
    assert last.bias is None
    return x.clamp(min=0) @ last.weight.T


def test_the_objective_step_by_step():
    module = build(contrast_weight=0.7, temperature=0.2)
    state = module(BATCH, "fit")
    mask, images = state["mask"], VIEWS[0]
    target = standardize_patches(patch_pixels(images, 8))
    error = (state["predictions"] - target).square().mean(2)
    recon = (error * mask).sum() / mask.sum()
    torch.testing.assert_close(state["loss_recon"], recon)
    student, teacher = module.backbone.student, module.backbone.teacher
    places = (1 - mask).nonzero()[:, 1].view(4, 4)  # a quarter of 16
    tokens = student.tokens(images, ids_keep=places)
    features = module.feature_decoder(tokens, mask, places)
    assert features.shape == (4, 16, 24)
    query = head(head(features.mean(1), module.projector.student), module.predictor)
    x = teacher.vit._pos_embed(teacher.vit.patch_embed(VIEWS[1]))  # all patches
    for block in teacher.vit.blocks:
        x = block(x)
    key = head(x[:, 1:].mean(1), module.projector.teacher)  # neither class token nor last norm
    q, k = F.normalize(query, dim=1), F.normalize(key, dim=1)
    contrast = F.cross_entropy(q @ k.T / 0.2, torch.arange(4))
    torch.testing.assert_close(state["loss_contrast"], contrast)
    torch.testing.assert_close(state["loss"], recon + 0.7 * 2 * 0.2 * contrast)
    assert torch.equal(state["label"], torch.arange(4))


def test_the_student_encodes_visible_patches_alone_and_is_evaluated():
    module = build()
    lengths = []
    module.backbone.student.vit.blocks[0].register_forward_hook(
        lambda m, i, o: lengths.append(o.shape[1])
    )
    module(BATCH, "fit")["loss"].backward()
    assert lengths == [1 + 4]
    assert all(p.grad is None for p in module.backbone.teacher.parameters())
    out = module.eval()({"image": VIEWS[0]}, "validate")["embedding"]
    torch.testing.assert_close(out, module.backbone.student(VIEWS[0]).embedding)


def test_the_second_view_is_shifted_image_by_image():
    image = torch.arange(9.0).view(1, 1, 3, 3).expand(300, 2, -1, -1)
    first, second = PixelShift(1)(image, image)
    assert first.shape == second.shape == (300, 2, 2, 2)
    assert torch.equal(first, image[..., :2, :2])
    seen = {tuple(x.flatten().tolist()) for x in second[:, 0]}
    corners = {(0.0, 1, 3, 4), (1, 2, 4, 5), (3, 4, 6, 7), (4, 5, 7, 8)}
    assert seen == corners
    assert torch.equal(second[:, 0], second[:, 1])
    with pytest.raises(ValueError, match="`pixel_shift` must be >= 0, got -1"):
        build(pixel_shift=-1)
    larger = F.pad(VIEWS[0], (0, 7, 0, 7))
    state = build(pixel_shift=7)([{"image": larger}, {"image": larger}], "fit")
    assert state["predictions"].shape == (4, 16, 192)
