"""CrossMAE against the official code's values, and what sets it apart from MAE."""

from pathlib import Path

import numpy as np
import pytest
import torch
from spt_losses import patch_pixels, standardize_patches
from spt_methods import methods
from spt_methods.masking.partial import PartialMasking, PartialMaskingOutput
from timm.models.vision_transformer import VisionTransformer

GOLDEN = Path(__file__).parent / "golden"
G = torch.Generator().manual_seed(0)
BATCH = {"image": torch.rand(3, 3, 32, 32, generator=G, dtype=torch.float64)}
SIZES = {"decoder_embed_dim": 16, "decoder_depth": 2, "decoder_num_heads": 2}


def official(name):
    with np.load(GOLDEN / name) as file:
        return {k: torch.tensor(file[k]) for k in file.files}


def vit(**kwargs):
    torch.manual_seed(0)
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3,
                             num_classes=0, **kwargs)  # fmt: skip


def build(**kwargs):
    torch.manual_seed(0)
    return methods.CrossMAE(vit(mlp_ratio=2.0), **{**SIZES, **kwargs}).double().train()


def load_official(module, weights):
    own = module.backbone.vit.state_dict()
    vit_state = {k: weights.get(k, v) for k, v in own.items()}  # the official encoder has no norm
    module.backbone.vit.load_state_dict(vit_state)
    outer = {"norm": "decoder_norm", "pred": "decoder_pred", "context_norms": "dec_norms"}
    inner = {"norm_cross": "norm1", "cross": "cross_attn", "norm_mlp": "norm2", "mlp": "mlp"}
    state = {"mix": weights["wfm.linear.weight"], "mask_token": weights["mask_token"]}
    for key in module.decoder.state_dict():
        first, *rest = key.split(".")
        if first == "blocks":
            index, part, *tail = rest
            state[key] = weights[".".join(["decoder_blocks", index, inner[part], *tail])]
        elif first in outer:
            state[key] = weights[".".join([outer[first], *rest])]
    module.decoder.load_state_dict(state)


def test_the_forward_pass_of_the_official_code():
    arrays = official("crossmae_forward.npz")
    weights = {k.removeprefix("w."): v.double() for k, v in arrays.items() if k.startswith("w.")}
    module = build(mlp_ratio=2.0, kept_mask_ratio=0.25)
    load_official(module, weights)
    module.decoder.pos_embed = weights["decoder_pos_embed"][0, 1:]
    visible = arrays["noise"].argsort(dim=1)[:, : int(arrays["n_visible"])]
    places = arrays["mask"].bool().nonzero()[:, 1].view(2, 4)
    module.masking.forward = lambda *_: PartialMaskingOutput(visible, places)
    images = arrays["imgs"].double()
    maps = module.backbone.block_outputs(images, ids_keep=visible, with_input=True)
    torch.testing.assert_close(maps[-1], arrays["encoder_last"], rtol=0, atol=1e-9)
    mixed = torch.tensordot(module.decoder.mix, torch.stack(maps), 1)
    expected = arrays["mixed_features"].movedim(-1, 0)
    torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-9)
    state = module({"image": images}, "fit")
    torch.testing.assert_close(state["predictions"], arrays["pred"], rtol=0, atol=1e-9)
    torch.testing.assert_close(state["loss"], arrays["loss"], rtol=0, atol=1e-9)
    assert torch.equal(state["mask"].bool(), arrays["mask"].bool())


@pytest.mark.parametrize("mixed", [True, False])
def test_the_encoder_sees_a_quarter_and_a_part_of_the_rest_is_predicted(mixed):
    module = build(kept_mask_ratio=0.5, weight_feature_maps=mixed)
    lengths = []
    module.backbone.vit.blocks[0].register_forward_hook(lambda m, i, o: lengths.append(o.shape[1]))
    module.decoder.blocks[0].register_forward_hook(lambda m, i, o: lengths.append(o.shape[1]))
    state = module(BATCH, "fit")
    assert lengths == [1 + 4, 8]
    assert state["mask"].sum(1).tolist() == [8.0] * 3
    target = standardize_patches(patch_pixels(BATCH["image"], 8))[state["mask"].bool()]
    error = (state["predictions"].flatten(0, 1) - target).square().mean()
    torch.testing.assert_close(state["loss"], error)
    state["loss"].backward()
    norm = module.backbone.vit.norm.weight
    assert norm.requires_grad is not mixed  # in the loss only where maps are not mixed


@pytest.mark.parametrize("self_attn", [False, True])
def test_queries_do_not_see_each_other_unless_asked(self_attn):
    module = build(self_attn=self_attn)
    kept = module.masking(3, 16, "cpu")
    maps = module.backbone.block_outputs(BATCH["image"], ids_keep=kept.ids_keep, with_input=True)
    together = module.decoder(maps, kept.places)
    alone = module.decoder(maps, kept.places[:, :1])
    assert torch.allclose(together[:, :1], alone, atol=1e-12) is not self_attn


def test_the_chosen_blocks_are_mixed():
    assert build().feature_maps == [0, 1, 2]
    assert build(use_input=False).feature_maps == [1, 2]
    assert build(use_feature_maps=(0, -1)).feature_maps == [0, 1, 2]
    one = build(use_feature_maps=(-2,), use_input=False)
    assert one.feature_maps == [1]
    assert one.decoder.mix.shape == (2, 1)
    with pytest.raises(ValueError, match=r"some of the encoder's 2 blocks, got \[2\]"):
        build(use_feature_maps=(2,))


def test_the_places_of_partial_masks():
    kept = PartialMasking(0.6, 0.3)(64, 10, "cpu")
    both = torch.cat([kept.ids_keep, kept.places], dim=1)
    assert (kept.ids_keep.shape, kept.places.shape) == ((64, 4), (64, 3))
    assert all(len(set(row)) == 7 for row in both.tolist())
    assert torch.equal(kept.places, kept.places.sort(dim=1).values)
    assert kept.places.flatten().bincount(minlength=10).min() > 8  # 64 * 3 / 10 on average
    with pytest.raises(ValueError, match="0 < kept <= mask < 1, got 0.8 and 0.6"):
        PartialMasking(0.6, 0.8)
