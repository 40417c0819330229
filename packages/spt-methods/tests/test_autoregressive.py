"""AIM and NEPA: masks that are causal, the official attention, and the papers' formulas."""

from pathlib import Path

import numpy as np
import pytest
import torch
from spt_losses import patch_pixels, standardize_patches
from spt_methods import methods
from spt_methods.backbones import ViTTokens, blocked_future
from spt_methods.backbones.causal import CausalViT, PrefixViT
from spt_methods.backbones.rope import DINOv3Rope
from timm.models.beit import Beit
from timm.models.vision_transformer import Block, VisionTransformer
from torch.nn import functional as F

GOLDEN = Path(__file__).parent / "golden"
G = torch.Generator().manual_seed(0)
IMAGES = torch.rand(3, 3, 32, 32, generator=G, dtype=torch.float64)
BATCH = {"image": IMAGES, "label": torch.arange(3)}
HEAD = {"head_dim": 16, "head_depth": 2, "feature_layers": 2}


def vit(**kwargs):
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}
    return VisionTransformer(**sizes, num_classes=0, **kwargs)


def aim(**kwargs):
    plain = vit(class_token=False, global_pool="avg", fc_norm=False)
    return methods.iGPT(plain, **HEAD, **kwargs).double().train()


def nepa(**kwargs):
    torch.manual_seed(0)
    module = methods.NEPA(
        "nepa_base_patch14", image_size=32, layer_scale_init=0.5,
        encoder_kwargs={"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}, **kwargs,
    ).double().train()  # fmt: skip
    module.backbone.rope.rescale = None  # one table for all passes
    return module


def with_patch(images, index, value):
    """The images with another patch at a place of the 4 x 4 grid."""
    changed = images.clone()
    row, column = divmod(index, 4)
    changed[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = value
    return changed


# --- masks ---------------------------------------------------------------------------------------


def official():
    with np.load(GOLDEN / "aim_prefix_attention.npz") as file:
        return {k: torch.tensor(file[k]) for k in file.files}


def test_prefix_masks_are_those_of_the_official_code():
    arrays = official()
    blocked = blocked_future(16, arrays["prefix_length"])
    assert torch.equal(~blocked.squeeze(1), arrays["attn_mask"].bool())


def test_a_block_under_the_mask_is_the_official_one():
    arrays = official()
    block = Block(24, 3, mlp_ratio=2, qkv_bias=False, proj_bias=False).double()
    block.norm1.eps = block.norm2.eps = 1e-6
    names = {"norm1": "norm_1", "norm2": "norm_2"}
    state = {}
    for key in block.state_dict():
        first, rest = key.split(".", 1)
        state[key] = arrays[f"block.{names.get(first, first)}.{rest}"].double()
    block.load_state_dict(state)
    encoder = PrefixViT(vit(class_token=False, global_pool="avg")).double()
    encoder.vit.blocks = torch.nn.Sequential(block)
    blocked = blocked_future(16, arrays["prefix_length"])
    (out,) = encoder.blocks_of(arrays["x"].double(), None, blocked)
    torch.testing.assert_close(out, arrays["block_out"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("fused", [True, False])
def test_no_output_before_a_patch_depends_on_it(fused):
    encoder = CausalViT(vit(reg_tokens=1)).double()
    for block in encoder.vit.blocks:
        block.attn.fused_attn = fused
    first = encoder.sequence(IMAGES).outputs
    for index in (0, 6, 15):
        again = encoder.sequence(with_patch(IMAGES, index, 0.5)).outputs
        at = 2 + index  # class token and register
        torch.testing.assert_close(again[:, :at], first[:, :at], rtol=0, atol=1e-12)
        assert (again[:, at] - first[:, at]).abs().sum() > 1e-3
    whole = encoder(IMAGES)
    torch.testing.assert_close(whole.patches, first[:, 2:])
    torch.testing.assert_close(whole.embedding, first[:, 2:].mean(1))


def test_attention_goes_both_ways_within_the_prefix_only():
    encoder = PrefixViT(vit(class_token=False, global_pool="avg")).double()
    lengths = torch.tensor([1, 7, 16])
    first = encoder.prefix_outputs(IMAGES, lengths)[-1]
    again = encoder.prefix_outputs(with_patch(IMAGES, 6, 0.5), lengths)[-1]
    moved = (again - first).abs().sum(2) > 1e-9
    assert moved[0].tolist() == [False] * 6 + [True] * 10
    assert moved[1:].all()
    both = encoder.prefix_outputs(IMAGES)
    torch.testing.assert_close(both[-1], encoder.block_outputs(IMAGES)[-1])
    torch.testing.assert_close(first[2], both[-1][2])


def test_masks_work_in_half_precision_and_are_refused_where_blocks_take_none():
    encoder = CausalViT(vit())
    with torch.autocast("cpu", torch.bfloat16):
        out = encoder(IMAGES.float()).patches
    torch.testing.assert_close(out.float(), encoder(IMAGES.float()).patches, rtol=0.1, atol=0.1)
    beit = Beit(img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=3, num_classes=0)
    with pytest.raises(ValueError, match="The blocks of Beit see everything"):
        CausalViT(beit)(IMAGES.float())


# --- AIM -----------------------------------------------------------------------------------------


def test_aim_predicts_the_next_patch_beyond_the_prefix():
    module = aim()
    state = module(BATCH, "fit")
    target = standardize_patches(patch_pixels(IMAGES, 8))
    errors = [
        (state["predictions"][n, j] - target[n, j + 1]).square().mean()
        for n, k in enumerate(state["prefix_length"].tolist())
        for j in range(k - 1, 15)
    ]
    torch.testing.assert_close(state["loss"], torch.stack(errors).mean())
    outputs = module.backbone.prefix_outputs(IMAGES, state["prefix_length"])
    predictions = module.head(module.backbone.vit.norm(outputs[-1]))
    for n, k in enumerate(state["prefix_length"].tolist()):
        torch.testing.assert_close(state["predictions"][n, k - 1 : 15], predictions[n, k - 1 : 15])
        assert (
            state["predictions"][n, : k - 1].abs().sum() == state["predictions"][n, 15].sum() == 0
        )
    mean = (outputs[-1] + outputs[-2]).mean(1) / 2
    torch.testing.assert_close(state["embedding"], mean)


def test_aims_predictions_of_a_patch_do_not_see_it():
    module = aim()
    every = torch.arange(48)
    module.prefix.forward = lambda *args: (torch.tensor([1, 4, 9]), every)
    first = module(BATCH, "fit")["predictions"]
    for index in (9, 12):  # beyond all prefixes
        again = module({"image": with_patch(IMAGES, index, 0.5)}, "fit")["predictions"]
        torch.testing.assert_close(again[:, :index], first[:, :index], rtol=0, atol=1e-10)
        assert (again[:, index:] - first[:, index:]).abs().sum() > 1e-3


def test_prefix_lengths_are_uniform_and_repeat():
    module = aim()
    drawn, places = module.prefix(30000, 16, torch.device("cpu"))
    assert len(places) == (16 - drawn).sum()
    first = places[places < 16].tolist()
    assert first == [*range(drawn[0] - 1, 15)]
    counts = drawn.bincount(minlength=17)
    assert counts[0] == counts[16] == 0
    assert (counts[1:16] - 2000).abs().max() < 5 * 2000**0.5
    assert not torch.equal(drawn, module.prefix(30000, 16, torch.device("cpu"))[0])
    assert torch.equal(drawn, aim().prefix(30000, 16, torch.device("cpu"))[0])


def test_aim_evaluates_both_ways():
    module = aim().eval()
    outputs = module.backbone.block_outputs(IMAGES)
    expected = (outputs[-1] + outputs[-2]).mean(1) / 2
    torch.testing.assert_close(module(BATCH, "validate")["embedding"], expected)


def test_aims_named_encoder_is_the_papers_and_others_are_refused():
    named = methods.iGPT("vit_tiny_patch16_224", image_size=32, encoder_kwargs={"depth": 2}, **HEAD)
    names = [name for name, _ in named.backbone.vit.blocks.named_parameters()]
    assert not [name for name in names if name.endswith("bias") and "norm" not in name]
    assert not named.backbone.vit.pos_embed.requires_grad
    with pytest.raises(ValueError, match="an encoder of patches alone, got one with 1 class or"):
        methods.iGPT(vit(), **HEAD)
    with pytest.raises(ValueError, match="between 1 and the 3 blocks of the encoder, got 4"):
        methods.iGPT(vit(class_token=False, global_pool="avg"), **{**HEAD, "feature_layers": 4})


# --- NEPA ----------------------------------------------------------------------------------------


def rotated(x, table):
    """The official ``rotate_half`` form, on patches only."""
    sin, cos = table.chunk(2, -1)
    prefix, patches = x[:, :, :1], x[:, :, 1:]
    a, b = patches.chunk(2, -1)
    return torch.cat([prefix, patches * cos + torch.cat([-b, a], -1) * sin], 2)


def test_nepa_is_the_official_transformer_and_loss():
    module = nepa()
    vit_, table = module.backbone.vit, DINOv3Rope(8)((4, 4)).double()
    state = module(BATCH, "fit")
    patches = F.conv2d(IMAGES, *vit_.patch_embed.proj.parameters(), stride=8).flatten(2).mT
    x = inputs = torch.cat([vit_.cls_token.expand(3, -1, -1), patches], 1)
    allowed = torch.ones(17, 17, dtype=torch.bool).tril()
    for block in vit_.blocks:
        y = F.layer_norm(x, (24,), block.norm1.weight, block.norm1.bias, block.norm1.eps)
        q, k, v = block.attn.qkv(y).view(3, 17, 3, 3, 8).permute(2, 0, 3, 1, 4)
        q, k = (rotated(F.layer_norm(z, (8,)), table) for z in (q, k))
        scores = (q @ k.mT / 8**0.5).masked_fill(~allowed, -torch.inf).softmax(-1)
        x = x + block.gamma_1 * block.attn.proj((scores @ v).transpose(1, 2).flatten(2))
        y = F.layer_norm(x, (24,), block.norm2.weight, block.norm2.bias, block.norm2.eps)
        gate, value = block.mlp.fc1(y).chunk(2, -1)
        x = x + block.gamma_2 * block.mlp.fc2(F.silu(gate) * value)
    outputs = F.layer_norm(x, (24,), vit_.norm.weight, vit_.norm.bias, vit_.norm.eps)
    torch.testing.assert_close(state["inputs"], inputs)
    torch.testing.assert_close(state["predictions"], outputs)
    torch.testing.assert_close(state["embedding"], outputs[:, 1:].mean(1))
    cosines = F.cosine_similarity(outputs[:, :-1], inputs[:, 1:], dim=-1)
    torch.testing.assert_close(state["loss"], -cosines.mean())


def test_nepas_targets_take_no_gradient_and_its_predictions_do_not_see_them():
    module = nepa()
    first = module(BATCH, "fit")
    again = module({"image": with_patch(IMAGES, 9, 0.5)}, "fit")
    torch.testing.assert_close(again["predictions"][:, :10], first["predictions"][:, :10])
    assert (again["predictions"][:, 10:] - first["predictions"][:, 10:]).abs().sum() > 1e-3
    assert not first["inputs"].requires_grad
    first["loss"].backward()
    with torch.enable_grad():
        sequence = module.backbone.sequence(IMAGES)
        p, z = sequence.outputs[:, :-1], sequence.inputs[:, 1:].detach()
        expected = torch.autograd.grad(
            -F.cosine_similarity(p, z, dim=-1).mean(), module.backbone.vit.patch_embed.proj.weight
        )
    torch.testing.assert_close(module.backbone.vit.patch_embed.proj.weight.grad, expected[0])


def test_nepa_stretches_positions_in_training_only_and_evaluates_causally():
    module = nepa()
    module.backbone.rope.rescale = 2.0
    first, second = (module(BATCH, "fit")["loss"].item() for _ in range(2))
    assert first != second
    module.eval()
    found = [module(BATCH, "validate")["embedding"] for _ in range(2)]
    assert torch.equal(*found)
    changed = module.backbone.sequence(with_patch(IMAGES, 15, 0.5)).outputs
    torch.testing.assert_close(changed[:, :16], module.backbone.sequence(IMAGES).outputs[:, :16])


def test_nepas_own_sizes_and_others_encoders():
    own = methods.NEPA(image_size=28, encoder_kwargs={"depth": 1}, in_chans=1)
    vit_ = own.backbone.vit
    assert (vit_.embed_dim, vit_.patch_embed.patch_size, vit_.pos_embed) == (768, (14, 14), None)
    assert vit_.blocks[0].mlp.fc2.in_features == 2048
    assert not list(vit_.blocks[0].attn.q_norm.parameters())
    assert (vit_.blocks[0].gamma_1 == 1e-5).all()
    plain = methods.NEPA(
        image_size=28, encoder_kwargs={"depth": 1}, qk_norm=False, swiglu=False, in_chans=1
    )
    assert plain.backbone.vit.blocks[0].mlp.fc2.in_features == 3072
    for module in (own, plain):
        module({"image": torch.rand(2, 1, 28, 28)}, "fit")["loss"].backward()
        missing = [n for n, p in module.named_parameters() if p.grad is None]
        assert missing == []
    given = methods.NEPA(ViTTokens(vit()))
    assert given.backbone.rope is None
