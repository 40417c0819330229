"""Blocks, encoders and decoders against timm and the official MAE."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from spt_methods.backbones import (
    Attention,
    CrossAttention,
    FlexibleTransformer,
    MAEDecoder,
    MaskedEncoder,
    PatchMasking,
    TransformerBlock,
)
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn
from torch.nn import functional as F

GOLDEN = Path(__file__).parent / "golden"
SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 0}


def vit(**kwargs):
    torch.manual_seed(0)
    return VisionTransformer(**{"img_size": 16, "patch_size": 4, **SMALL, **kwargs})


VARIANTS = {
    "plain": {},
    "registers": {"reg_tokens": 3},
    "no class token": {"class_token": False, "global_pool": "avg"},
    "pre-norm": {"pre_norm": True},
    "positions of patches only": {"no_embed_class": True, "reg_tokens": 2},
    "not square": {"img_size": (16, 24)},
    "dynamic": {"dynamic_img_size": True},
    "layer scale and query-key norm": {"init_values": 1e-3, "qk_norm": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_without_a_mask_the_encoder_is_timms(variant):
    model = vit(**VARIANTS[variant]).eval()
    size = VARIANTS[variant].get("img_size", 16)
    images = torch.randn(2, 3, *((size, size) if isinstance(size, int) else size))
    expected = model.forward_features(images)
    pooled = model(images)
    encoder = MaskedEncoder(model).eval()
    out = encoder(images)
    torch.testing.assert_close(out.encoded, expected)
    assert out.mask.sum() == 0
    torch.testing.assert_close(encoder.pool(out.encoded), pooled)


@pytest.mark.parametrize("variant", VARIANTS)
def test_kept_patches_are_encoded_alone(variant):
    encoder = MaskedEncoder(vit(**VARIANTS[variant]), PatchMasking(0.75)).train()
    size = VARIANTS[variant].get("img_size", 16)
    images = torch.randn(2, 3, *((size, size) if isinstance(size, int) else size))
    out = encoder(images)
    kept = out.ids_keep.shape[1]
    number = out.grid_size[0] * out.grid_size[1]
    assert kept == int(number * 0.25)
    assert out.encoded.shape[1] == encoder.num_prefix_tokens + kept
    assert out.mask.sum(1).tolist() == [number - kept] * 2
    # what is hidden has no influence
    pixels = out.mask.reshape(2, *out.grid_size).repeat_interleave(4, 1).repeat_interleave(4, 2)
    changed = images + pixels.unsqueeze(1) * torch.randn_like(images)
    torch.testing.assert_close(encoder.forward_kept(changed, out.ids_keep), out.encoded)
    mask = torch.rand(2, number) < 0.5
    token = torch.zeros(1, 1, 24)
    full = encoder.forward_masked(images, mask, token)
    assert full.shape[1] == encoder.num_prefix_tokens + number
    torch.testing.assert_close(
        encoder.forward_masked(images, torch.zeros_like(mask), token),
        encoder.forward_features(images),
    )


def test_dynamic_sizes_and_evaluation():
    encoder = MaskedEncoder(vit(dynamic_img_size=True), PatchMasking(0.5)).eval()
    out = encoder(torch.randn(1, 3, 24, 16))
    assert out.grid_size == (6, 4)
    assert out.encoded.shape == (1, 25, 24)  # nothing is hidden in evaluation
    assert (encoder.patch_size_h, encoder.default_grid_w, encoder.embed_dim) == (4, 4, 24)


def test_what_the_encoder_refuses():
    with pytest.raises(
        TypeError, match=r"needs a VisionTransformer \(or Eva, Beit\) of timm, got ResNet"
    ):
        MaskedEncoder(timm.create_model("resnet10t"))
    with pytest.raises(ValueError, match=r"\['img_size'\] are for models given by name"):
        MaskedEncoder(vit(), img_size=32)
    named = MaskedEncoder("vit_tiny_patch16_224", img_size=32, patch_size=8)
    assert named.default_grid == (4, 4)
    assert len({k.split(".")[0] for k in named.state_dict()}) == 1  # everything once, under `vit`


def official(name):
    with np.load(GOLDEN / name) as file:
        return {k: torch.tensor(file[k]) for k in file.files}


def test_the_mae_of_the_official_code():
    arrays = official("mae_forward.npz")
    weights = {k.removeprefix("w."): v.double() for k, v in arrays.items() if k.startswith("w.")}
    model = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=3, num_classes=0
    ).double()
    own = model.state_dict()
    model.load_state_dict({k: weights[k] for k in own})
    decoder = MAEDecoder(24, 16, 192, 16, depth=1, num_heads=2, num_prefix_tokens=1).double()
    renamed = {
        "norm_attn": "norm1", "norm_mlp": "norm2", "attn": "attn", "mlp": "mlp",
    }  # fmt: skip
    state = {}
    for key in decoder.state_dict():
        if key.startswith("blocks"):
            _, i, part, *rest = key.split(".")
            state[key] = weights[".".join(["decoder_blocks", i, renamed[part], *rest])]
        else:
            names = {"norm": "decoder_norm", "pred": "decoder_pred", "mask_token": "mask_token"}
            first, *rest = key.split(".")
            state[key] = weights[".".join([names.get(first, first), *rest])]
    decoder.load_state_dict(state)
    encoder = MaskedEncoder(model).double()
    images, noise = arrays["imgs"].double(), arrays["noise"]
    order = noise.argsort(dim=1)[:, :4]
    latent = encoder.forward_kept(images, order)
    torch.testing.assert_close(latent, arrays["latent"], rtol=0, atol=1e-6)
    mask = arrays["mask"].double()
    pred = decoder(latent, mask, order)
    torch.testing.assert_close(pred, arrays["pred"], rtol=0, atol=1e-6)
    hidden = decoder(latent, mask, order, output_masked_only=True)
    torch.testing.assert_close(hidden, pred[mask.bool()].reshape(2, 12, 192))
    every = torch.zeros(2, 17, 24, dtype=torch.float64)
    every[:, :1] = latent[:, :1]
    every[:, 1:].scatter_(1, order.unsqueeze(2).expand(-1, -1, 24), latent[:, 1:])
    torch.testing.assert_close(decoder(every, mask), pred)


def test_the_decoder_refuses_what_does_not_fit():
    decoder = MAEDecoder(8, 16, 12, 16, depth=1, num_heads=2)
    with pytest.raises(ValueError, match=r"`x` holds 5 patches; `ids_keep` names 4 of 16"):
        decoder(torch.zeros(1, 5, 8), torch.ones(1, 16), torch.zeros(1, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="`pos_embed_type` must be"):
        MAEDecoder(pos_embed_type="rope")


def test_a_plain_block_is_timms():
    ours, theirs = TransformerBlock(24, 3).eval(), Block(24, 3, qkv_bias=True).eval()
    names = {"norm_attn": "norm1", "norm_mlp": "norm2"}
    state = {}
    for key in ours.state_dict():
        first, *rest = key.split(".")
        state[key] = theirs.state_dict()[".".join([names.get(first, first), *rest])]
    ours.load_state_dict(state)
    x = torch.randn(2, 5, 24)
    theirs.norm1.eps = theirs.norm2.eps = 1e-6
    torch.testing.assert_close(ours(x), theirs(x))


def test_attention_by_its_formula_with_a_mask():
    torch.manual_seed(0)
    attention = Attention(8, 2).double()
    x = torch.randn(3, 4, 8, dtype=torch.float64)
    blocked = torch.ones(4, 4, dtype=torch.bool).triu(1)
    q, k, v = attention.qkv(x).unflatten(2, (3, 2, 4)).unbind(2)
    out = torch.zeros(3, 4, 2, 4, dtype=torch.float64)
    for h in range(2):
        scores = q[:, :, h] @ k[:, :, h].transpose(1, 2) / 2.0
        out[:, :, h] = scores.masked_fill(blocked, -torch.inf).softmax(2) @ v[:, :, h]
    torch.testing.assert_close(attention(x, blocked), attention.proj(out.flatten(2)))
    changed = x.clone()
    changed[:, 3] += 1.0  # the future
    torch.testing.assert_close(attention(changed, blocked)[:, :3], attention(x, blocked)[:, :3])


def test_query_key_norms_come_before_the_rotation():
    attention = Attention(16, 2, use_rope=True, use_qk_norm=True)
    x = torch.randn(1, 6, 16)
    torch.testing.assert_close(attention(x, grid=(2, 3)), attention(x, grid=(2, 3)))
    q = attention.q_norm(torch.randn(5, 8) * 100)
    torch.testing.assert_close(q.square().mean(1), torch.ones(5), rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="needs the `grid` of its tokens"):
        attention(x)
    with pytest.raises(ValueError, match="`dim` must be a multiple of `num_heads`, got 10 and 4"):
        Attention(10, 4)
    with pytest.raises(ValueError, match="`use_rope` must be '1d'"):
        Attention(16, 2, use_rope="5d")


def test_cross_attention_looks_at_the_context_only():
    cross = CrossAttention(8, 6, 2)
    x, context = torch.randn(2, 3, 8), torch.randn(2, 5, 6)
    out = cross(x, context)
    blocked = torch.zeros(3, 5, dtype=torch.bool)
    blocked[:, 4] = True
    other = context.clone()
    other[:, 4] += 1
    torch.testing.assert_close(cross(x, other, blocked), cross(x, context, blocked))
    assert not torch.allclose(cross(x, other), out)


def test_adaln_zero_starts_as_the_identity_and_obeys_its_condition():
    block = TransformerBlock(16, 2, cross_attn=True, use_adaln=True)
    x, context, t = torch.randn(2, 3, 16), torch.randn(2, 5, 16), torch.randn(2, 16)
    torch.testing.assert_close(block(x, context, t), x)
    nn.init.normal_(block.adaln[1].weight)
    assert not torch.allclose(block(x, context, t), block(x, context, -t))
    with pytest.raises(ValueError, match="with AdaLN needs the condition `t`"):
        block(x, context)
    with pytest.raises(ValueError, match="with cross-attention needs `context`"):
        block(x, None, t)
    with pytest.raises(ValueError, match="needs `self_attn` or `cross_attn`"):
        TransformerBlock(16, 2, self_attn=False)


def test_swiglu_and_layer_scale():
    block = TransformerBlock(24, 2, mlp_type="swiglu", use_layer_scale=True)
    assert block.mlp.fc1_g.out_features == 64  # two thirds of 4 * 24
    x = torch.randn(1, 3, 24)
    torch.testing.assert_close(block(x), x, rtol=0, atol=1e-3)
    with pytest.raises(ValueError, match="`mlp_type` must be 'gelu' or 'swiglu', got 'relu'"):
        TransformerBlock(24, 2, mlp_type="relu")


def small(**kwargs):
    torch.manual_seed(0)
    settings = {
        "input_dim": 8, "hidden_dim": 16, "output_dim": 5, "num_patches": 9, "depth": 2,
        "num_heads": 2, "use_adaln": False, "zero_init_output": False, "num_prefix_tokens": 0,
    }  # fmt: skip
    return FlexibleTransformer(**{**settings, **kwargs}).eval()


def test_answers_do_not_depend_on_the_order_of_the_context():
    model = small()
    context, queries = torch.randn(2, 4, 8), torch.randn(2, 3, 8)
    places, asked = torch.tensor([[0, 3, 5, 8]] * 2), torch.tensor([[1, 2, 7]] * 2)
    out = model(context, queries, places, asked)
    assert out.shape == (2, 3, 5)
    back = model(context.flip(1), queries, places.flip(1), asked)
    torch.testing.assert_close(back, out, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(model(context, queries, places.flip(1), asked), out)


@pytest.mark.parametrize("rope", [None, "2d"])
def test_joint_attention_answers_queries_or_all_places(rope):
    model = small(cross_attn=False, use_rope=rope, num_registers=2, num_prefix_tokens=1)
    context, queries = torch.randn(2, 1 + 4, 8), torch.randn(2, 3, 8)
    places, asked = torch.tensor([[0, 3, 5, 8]] * 2), torch.tensor([[1, 2, 7]] * 2)
    out = model(context, queries, places, asked)
    whole, registers = model(
        context, queries, places, asked, return_all=True, return_registers=True
    )
    assert whole.shape == (2, 9, 5)
    assert registers.shape == (2, 2, 5)
    torch.testing.assert_close(whole[:, [1, 2, 7]], out)
    assert whole[:, [4, 6]].abs().sum() == 0
    blocked = torch.zeros(8, 8, dtype=torch.bool)
    blocked[:7, 7] = True  # nobody looks at the last query
    other = queries.clone()
    other[:, 2] += 1
    kept = model(context, queries, places, asked, attn_mask=blocked)[:, :2]
    if rope is None:  # registers look at everything and would carry it on
        model = small(cross_attn=False, num_prefix_tokens=1)
        kept = model(context, queries, places, asked, attn_mask=blocked)[:, :2]
        again = model(context, other, places, asked, attn_mask=blocked)[:, :2]
        torch.testing.assert_close(again, kept)


def test_mask_tokens_stand_for_what_is_hidden():
    model = small(add_mask_token=True)
    context, queries = torch.randn(1, 4, 8), torch.randn(1, 3, 8)
    places, asked = torch.arange(4)[None], torch.arange(4, 7)[None]
    hidden = torch.ones(1, 3)
    by_mask = model(context, queries, places, asked, query_mask=hidden)
    torch.testing.assert_close(model(context, None, places, asked), by_mask)
    seen = model(context, queries, places, asked, context_mask=torch.tensor([[0, 1, 0, 0]]))
    context[:, 1] += 5
    same = model(context, queries, places, asked, context_mask=torch.tensor([[0, 1, 0, 0]]))
    torch.testing.assert_close(same, seen)


def test_time_conditions_the_answer():
    model = small(use_adaln=True)
    for block in model.blocks:
        nn.init.normal_(block.adaln[1].weight, std=0.1)
    context, queries = torch.randn(2, 9, 8), torch.randn(2, 9, 8)
    early, late = (model(context, queries, t=torch.full((2,), t)) for t in (0.0, 100.0))
    assert not torch.allclose(early, late)
    with pytest.raises(ValueError, match="needs the times `t`"):
        model(context, queries)


def test_the_transformer_refuses_contradictions():
    for settings, text in [
        ({"use_rope": True}, "`use_rope` needs joint attention"),
        ({"pos_embed_type": "fourier"}, "`pos_embed_type` must be one of"),
    ]:
        with pytest.raises(ValueError, match=text):
            small(**settings)
    x = torch.zeros(1, 9, 8)
    with pytest.raises(ValueError, match="Masks need a mask token"):
        small()(x, x, query_mask=torch.ones(1, 9))
    with pytest.raises(ValueError, match="Cross-attention needs `queries`"):
        small()(x)
    with pytest.raises(ValueError, match="need `cross_attn=False`"):
        small()(x, x, return_all=True)
    assert small(zero_init_output=True)(x, x).abs().sum() == 0


def test_masks_are_seeded_exact_and_differ_between_batches():
    x = torch.arange(2 * 12 * 1.0).reshape(2, 12, 1)
    first, second = PatchMasking(0.6, seed=3).train(), PatchMasking(0.6, seed=3).train()
    state = torch.get_rng_state()
    one, two = first(x, 3, 4), first(x, 3, 4)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(second(x, 3, 4).mask, one.mask)
    assert not torch.equal(one.mask, two.mask)
    assert not torch.equal(one.mask[0], one.mask[1])
    third = PatchMasking(0.6, seed=3).train()
    third.load_state_dict(second.state_dict())
    assert torch.equal(third(x, 3, 4).mask, two.mask)
    assert one.mask.sum(1).tolist() == [8, 8]  # 12 - int(12 * 0.4)
    hidden = x[one.mask.bool()].reshape(2, 8, 1)
    assert torch.equal(
        torch.cat([one.visible, hidden], 1).gather(1, one.ids_restore.unsqueeze(2)), x
    )


def test_uniform_masks_hide_every_patch_equally_often():
    masking = PatchMasking(0.75).train()
    x = torch.zeros(4000, 16, 1)
    share = masking(x, 4, 4).mask.mean(0)
    assert (share - 0.75).abs().max() < 4 * (0.75 * 0.25 / 4000) ** 0.5


def test_squares_and_crops():
    x = torch.zeros(64, 64, 1)
    squares = PatchMasking(0.5, block_size=2).train()(x, 8, 8).mask.reshape(64, 4, 2, 4, 2)
    assert (squares.amax((2, 4)) == squares.amin((2, 4))).all()
    crops = PatchMasking(0.75, crop_ratio=1.0, crop_aspect_ratio=(1.0, 1.0)).train()(x, 8, 8)
    shown = 1 - crops.mask.reshape(64, 8, 8)
    assert (shown.sum((1, 2)) == 16).all()
    for image in shown:
        rows, columns = image.any(1).nonzero().flatten(), image.any(0).nonzero().flatten()
        assert len(rows) == len(columns) == 4
        assert image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    for arguments, text in [
        ({"mask_ratio": 1.0}, r"`mask_ratio` must be in \[0, 1\), got 1.0"),
        ({"block_size": 0}, "`block_size` must be >= 1"),
        ({"crop_ratio": 2.0}, r"`crop_ratio` must be in \[0, 1\]"),
        ({"crop_aspect_ratio": (2, 1)}, "`crop_aspect_ratio` must be 0 < low <= high"),
    ]:
        with pytest.raises(ValueError, match=text):
            PatchMasking(**arguments)
    with pytest.raises(ValueError, match=r"must have shape \(B, 3 \* 3, D\), got \(64, 64, 1\)"):
        PatchMasking().train()(x, 3, 3)


def test_the_loss_of_the_official_mae_follows_from_its_prediction():
    arrays = official("mae_forward.npz")
    from spt_methods.backbones import patchify

    target = (
        patchify(arrays["imgs"].double(), (3, 8, 8))
        .unflatten(2, (3, 64))
        .transpose(2, 3)
        .flatten(2)
    )
    error = F.mse_loss(arrays["pred"], target, reduction="none").mean(2)
    mask = arrays["mask"].double()
    torch.testing.assert_close(
        (error * mask).sum() / mask.sum(), arrays["loss_raw"].double(), rtol=1e-6, atol=0
    )
