"""The token adapter over a list of timm's vision transformers."""

import pytest
import timm
import torch
from spt_methods.backbones import ViTTokens
from spt_methods.masking import keep_tokens

SMALL = {"depth": 2, "embed_dim": 24, "num_heads": 2, "img_size": 32, "patch_size": 8}
MODELS = {
    "vit_tiny_patch16_224": {},
    "vit_tiny_patch16_224 dynamic": {"dynamic_img_size": True},
    "vit_tiny_patch16_224 wide": {"img_size": (32, 48)},
    "vit_base_patch16_clip_224": {},  # pre-norm
    "vit_small_patch14_reg4_dinov2": {},  # registers, positions of patches only
    "vit_base_patch16_gap_224": {},  # no class token
    "vit_base_patch16_siglip_224": {},  # attention pooling
    "deit3_small_patch16_224": {},
    "eva02_tiny_patch14_224": {},  # rotary positions
    "vit_small_patch16_dinov3": {},  # rotary positions and registers, no learned ones
    "vit_small_patch16_rope_mixed_224": {},  # rotations of each block and head
}


def build(name):
    torch.manual_seed(0)
    kwargs = {**SMALL, **MODELS[name]}
    return timm.create_model(name.split()[0], num_classes=0, **kwargs).eval(), kwargs["img_size"]


@pytest.mark.parametrize("name", MODELS)
def test_whole_images_give_timms_tokens_and_embedding(name):
    model, size = build(name)
    size = size if isinstance(size, tuple) else (size, size)
    images = torch.randn(2, 3, *size)
    encoder = ViTTokens(model, mask_token=True)
    out = encoder(images)
    torch.testing.assert_close(torch.cat(out[1:3], dim=1), model.forward_features(images))
    torch.testing.assert_close(out.embedding, model(images))
    assert out.grid_size == (size[0] // 8, size[1] // 8)
    assert out.prefix.shape[1] == model.num_prefix_tokens
    assert out.embedding.shape == (2, encoder.num_features)


def test_a_hybrids_patches_are_as_large_as_its_stem_makes_them():
    model = timm.create_model("vit_tiny_r_s16_p8_224", num_classes=0, img_size=64, in_chans=1)
    encoder, images = ViTTokens(model.eval()), torch.randn(2, 1, 64, 64)
    out = encoder(images)
    torch.testing.assert_close(out.embedding, model(images))
    assert out.grid_size == encoder.default_grid == (2, 2)
    assert (encoder.patch_size, encoder.in_chans) == ((32, 32), 1)


@pytest.mark.parametrize("name", MODELS)
def test_kept_patches_alone_and_masked_ones(name):
    model, size = build(name)
    size = size if isinstance(size, tuple) else (size, size)
    images, number = torch.randn(2, 3, *size), size[0] * size[1] // 64
    encoder = ViTTokens(model, mask_token=True)
    order = torch.stack([torch.randperm(number) for _ in range(2)])
    everything = encoder(images, ids_keep=order)  # any order: positions travel with the patches
    whole = encoder(images)
    torch.testing.assert_close(
        everything.patches, keep_tokens(whole.patches, order), rtol=1e-4, atol=1e-5
    )
    keep = order[:, :5]
    mask = torch.ones(2, number).scatter_(1, keep, 0.0)
    pixels = mask.reshape(2, *whole.grid_size).repeat_interleave(8, 1).repeat_interleave(8, 2)
    changed = images + pixels.unsqueeze(1) * torch.randn_like(images)
    for kwargs in ({"ids_keep": keep}, {"mask": mask}):
        a, b = encoder(images, **kwargs), encoder(changed, **kwargs)
        torch.testing.assert_close(a.patches, b.patches)  # what is hidden has no influence
    assert encoder(images, ids_keep=keep).patches.shape == (2, 5, 24)
    torch.testing.assert_close(encoder(images, mask=torch.zeros(2, number)).patches, whole.patches)


def test_block_outputs_end_before_the_norm():
    model, _ = build("vit_tiny_patch16_224")
    images = torch.randn(2, 3, 32, 32)
    encoder = ViTTokens(model)
    outputs = encoder.block_outputs(images)
    assert len(outputs) == 2
    torch.testing.assert_close(model.norm(outputs[-1]), model.forward_features(images))
    expected = model.forward_intermediates(images, indices=[0], intermediates_only=True)[0]
    torch.testing.assert_close(outputs[0][:, 1:].mT.reshape_as(expected), expected)


def test_a_mask_needs_a_token():
    model, _ = build("vit_tiny_patch16_224")
    with pytest.raises(ValueError, match="has no mask token: make it with `mask_token=True`"):
        ViTTokens(model)(torch.randn(1, 3, 32, 32), mask=torch.zeros(1, 16))
