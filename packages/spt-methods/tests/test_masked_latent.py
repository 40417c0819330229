"""V-JEPA and SALT: masks with the official statistics, the official encoder, and the papers' error."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from spt_methods import methods
from spt_methods.backbones import VideoViT, ViTTokens
from spt_methods.masking import MultiBlockMasking, RandomTubeMasking, TubeMasking
from spt_methods.masking.tubes import tube_size
from spt_methods.methods._masked_latent import LONG_RANGE, SHORT_RANGE
from torch.nn import functional as F

GOLDEN = Path(__file__).parent / "golden"
GRID = (8, 14, 14)
RANGES = {"short_range": SHORT_RANGE, "long_range": LONG_RANGE}
STATISTICS = json.loads((GOLDEN / "vjepa_mask_stats.json").read_text())["configurations"]
G = torch.Generator().manual_seed(0)
VIDEO = torch.rand(2, 4, 3, 32, 32, generator=G, dtype=torch.float64)  # (N, T, C, H, W)
BATCH = {"video": VIDEO, "label": torch.arange(2)}
PREDICTOR = {"predictor_embed_dim": 24, "predictor_depth": 1, "predictor_num_heads": 3}
SIZES = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}


def encoder(seed=0, **kwargs):
    torch.manual_seed(seed)
    sizes = {**SIZES, "num_frames": 4, "image_size": 32, **kwargs}
    return VideoViT("vit_tiny_patch16_224", **sizes)


def image_encoder(seed=0, **kwargs):
    torch.manual_seed(seed)
    plain = {"class_token": False, "global_pool": "avg", "fc_norm": False, "img_size": 32}
    return ViTTokens("vit_tiny_patch16_224", **{**plain, **SIZES, **kwargs})


# --- masks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RANGES)
def test_sizes_of_blocks_are_the_official_ones(name):
    with np.load(GOLDEN / "vjepa_block_sizes.npz") as file:
        draws, sizes = file[f"{name}_u"], file[f"{name}_thw"]
    masking = TubeMasking(**RANGES[name])
    scales = (masking.temporal_scale, masking.spatial_scale, masking.aspect_ratio)
    found = [tube_size(GRID, u, *scales) for u in draws.tolist()]
    assert found == [tuple(size) for size in sizes.tolist()]


@pytest.mark.parametrize("name", RANGES)
def test_blocks_have_the_official_statistics(name):
    expected, masking = STATISTICS[name], TubeMasking(**RANGES[name])
    draws = [masking(8, GRID) for _ in range(150)]
    for key, lengths in (
        ("context_length", [d.context_idx.shape[1] for d in draws]),
        ("prediction_length", [d.target_idx.shape[1] for d in draws]),
    ):
        values, known = torch.tensor(lengths).double(), expected[key]
        limit = 4 * math.sqrt(known["se"] ** 2 + known["sd"] ** 2 / len(values))
        assert abs(values.mean().item() - known["mean"]) < limit, key
    for key, places in (("context", "context_idx"), ("prediction", "target_idx")):
        found = torch.zeros(8)
        for draw in draws:
            found += (getattr(draw, places) // 196).flatten().bincount(minlength=8)
        shares = found / (150 * 8 * 196)
        known = torch.tensor(expected[f"{key}_probability_by_frame"])
        assert (shares - known).abs().max() < 0.035, key


def test_what_is_predicted_is_not_in_the_context_and_fills_whole_blocks_through_time():
    masking = TubeMasking(num_blocks=1)
    context, targets = masking(4, (3, 6, 7))
    for shown, hidden in zip(context.tolist(), targets.tolist(), strict=True):
        assert not set(shown) & set(hidden)
        assert set(shown) | set(hidden) == set(range(3 * 42))
        frames = [{place - 42 * t for place in hidden if place // 42 == t} for t in range(3)]
        assert frames[0] == frames[1] == frames[2]
        rows, columns = ({f(p) for p in frames[0]} for f in (lambda p: p // 7, lambda p: p % 7))
        assert len(rows) * len(columns) == len(frames[0])
    assert len({tuple(row) for row in targets.tolist()}) > 1  # places of their own
    again = TubeMasking(num_blocks=1)(4, (3, 6, 7))
    assert torch.equal(again.target_idx, targets)


def test_the_context_can_be_kept_to_the_first_frames_and_small_grids_always_have_one():
    context, targets = TubeMasking(max_temporal_keep=0.5)(4, (4, 8, 8))
    assert context.max() < 2 * 64
    assert set(range(2 * 64, 4 * 64)) & set(targets[0].tolist())
    for masking in (TubeMasking(**SHORT_RANGE), TubeMasking(**LONG_RANGE)):
        for _ in range(20):
            assert masking(8, (4, 4)).context_idx.shape[1] > 0
    with pytest.raises(ValueError, match=r"\(1, 2, 2\) frames, rows and columns leaves no context"):
        TubeMasking(spatial_scale=(1.0, 1.0), aspect_ratio=(1.0, 1.0))(2, (2, 2))
    with pytest.raises(ValueError, match="`num_blocks` must be >= 1, got 0"):
        TubeMasking(num_blocks=0)
    with pytest.raises(ValueError, match=r"`spatial_scale` must be 0 < low <= high <= 1, got \(0"):
        TubeMasking(spatial_scale=(0.0, 0.5))
    with pytest.raises(ValueError, match=r"`max_temporal_keep` must be in \(0, 1\], got 0"):
        TubeMasking(max_temporal_keep=0)


def test_random_tubes_show_the_same_patches_of_every_frame():
    known = STATISTICS["random_tube"]
    context, targets = RandomTubeMasking(known["parameters"]["ratio"])(3, GRID)
    assert context.shape[1] == known["context_length"]
    assert targets.shape[1] == known["prediction_length"]
    for row in context.view(3, 8, -1):
        assert all(torch.equal(row[t] - 196 * t, row[0]) for t in range(8))
    joined = torch.cat([context, targets], 1).sort(1).values
    assert torch.equal(joined, torch.arange(8 * 196).expand(3, -1))
    assert not torch.equal(context[0], context[1])
    with pytest.raises(ValueError, match=r"`ratio` must be in \(0, 1\), got 1"):
        RandomTubeMasking(1.0)
    with pytest.raises(ValueError, match="shows none of 4 patches"):
        RandomTubeMasking(0.9)(2, (2, 2))


def test_the_same_blocks_make_a_masked_autoencoder_salts_first_stage():
    masking = MultiBlockMasking()
    out = masking(torch.zeros(4, 36, 5), 6, 6)
    expected = TubeMasking()(4, (6, 6)).context_idx
    assert torch.equal(out.ids_keep, expected)
    assert torch.equal(out.mask, torch.ones(4, 36).scatter(1, expected, 0.0))
    assert masking.eval()(torch.zeros(4, 36, 5), 6, 6).mask.sum() == 0
    decoder = {"decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2}
    module = methods.MAE(image_encoder(), masking=MultiBlockMasking(), **decoder).train()
    state = module({"image": VIDEO[:, 0].float()}, "fit")
    assert torch.isfinite(state["loss"])
    assert 0 < state["mask"].sum() < 32


# --- the video transformer -----------------------------------------------------------------------


def test_the_video_transformer_is_the_official_one():
    model = encoder().double()
    clips = VIDEO.transpose(1, 2)
    x = F.conv3d(clips, *model.patch_embed.parameters(), stride=(2, 8, 8))
    assert x.shape == (2, 24, 2, 4, 4)
    t, y, x_ = torch.meshgrid(torch.arange(2), torch.arange(4), torch.arange(4), indexing="ij")
    omega = 10000 ** (-torch.arange(4).double() / 4)  # three parts of 24 / 3 = 8
    parts = [place.flatten()[:, None] * omega for place in (t, y, x_)]
    table = torch.cat([torch.cat([p.sin(), p.cos()], 1) for p in parts], 1)
    tokens = x.flatten(2).mT + table.float()
    for block in model.blocks:
        tokens = block(tokens)
    tokens = model.norm(tokens)
    out = model(clips)
    torch.testing.assert_close(out.patches, tokens)
    torch.testing.assert_close(out.embedding, tokens.mean(1))
    assert out.grid_size == model.default_grid == (2, 4, 4)


def test_kept_tubelets_are_encoded_alone_and_other_sizes_are_resampled():
    model = encoder().double()
    clips = VIDEO.transpose(1, 2)
    keep = torch.tensor([[0, 5, 20], [1, 2, 31]])
    out = model(clips, ids_keep=keep).patches
    pixels = torch.zeros(2, 2, 4, 4)
    pixels.flatten(1).scatter_(1, keep, 1.0)
    shown = F.interpolate(pixels.unsqueeze(1), scale_factor=(2, 8, 8)).double()
    noise = torch.rand(clips.shape, dtype=torch.float64)
    changed = torch.where(shown.bool(), clips, noise)
    torch.testing.assert_close(model(changed, ids_keep=keep).patches, out)
    longer = torch.rand(1, 3, 8, 48, 32, dtype=torch.float64)
    assert model(longer).grid_size == (4, 6, 4)
    assert model.positions_of((4, 6, 4)).shape == (96, 24)
    with pytest.raises(ValueError, match=r"shape \(B, C, T, H, W\), got \(2, 3, 32, 32\)"):
        model(clips[:, :, 0])
    with pytest.raises(ValueError, match="3 frames of side 32 do not divide into tubelets of 2"):
        encoder(num_frames=3)
    with pytest.raises(
        ValueError, match="needs the name of a VisionTransformer of timm, got 'resnet"
    ):
        VideoViT("resnet10t", image_size=32)


# --- the methods ---------------------------------------------------------------------------------


def expected_loss(module, teacher, clips, grid, masks):
    """Section 3.1, mask by mask: mean absolute error to normalised features, masks weigh the same."""
    with torch.no_grad():
        target = F.layer_norm(teacher(clips).patches, (24,))
    student = getattr(module.backbone, "student", module.backbone)
    errors = []
    for which, (context_idx, target_idx) in enumerate(masks):
        context = student(clips, ids_keep=context_idx).patches
        found = module.predictor(context, context_idx, target_idx.unsqueeze(0), which)
        wanted = torch.stack([target[n, idx] for n, idx in enumerate(target_idx)])
        errors.append((found - wanted).abs().mean())
    return sum(errors) / 2


def masks_of(module, size, grid):
    """What the method draws in its first step."""
    kinds = [TubeMasking(**SHORT_RANGE), TubeMasking(**LONG_RANGE, seed=1)]
    return [kind(size, grid) for kind in kinds]


def test_vjepa_regresses_the_teachers_features_under_both_masks():
    module = methods.VJEPA(encoder(), **PREDICTOR).double().train()
    with torch.no_grad():
        for parameter in module.backbone.teacher.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=G, dtype=torch.float64))
        module.predictor.mask_token.normal_(generator=G)
    state = module(BATCH, "fit")
    clips, grid = VIDEO.transpose(1, 2), (2, 4, 4)
    teacher = module.backbone.teacher
    masks = masks_of(module, 2, grid)
    torch.testing.assert_close(state["loss"], expected_loss(module, teacher, clips, grid, masks))
    torch.testing.assert_close(state["embedding"], teacher(clips).embedding)
    assert [p.shape[1] for p in state["predictions"]] == [m.target_idx.shape[1] for m in masks]
    assert not any(target.requires_grad for target in state["targets"])
    module.eval()
    torch.testing.assert_close(module(BATCH, "validate")["embedding"], teacher(clips).embedding)


def test_vjepas_predictor_begins_with_blank_mask_tokens_and_both_learn():
    module = methods.VJEPA(
        "vit_tiny_patch16_224", num_frames=4, image_size=32, encoder_kwargs={"depth": 1},
        predictor_embed_dim=24, predictor_depth=1,
    ).train()  # fmt: skip
    assert module.predictor.mask_token.shape == (2, 1, 24)
    assert module.predictor.mask_token.abs().sum() == 0
    module({"video": VIDEO.float()}, "fit")["loss"].backward()
    assert (module.predictor.mask_token.grad.abs().sum((1, 2)) > 0).all()
    with pytest.raises(ValueError, match="timm has no pretrained video transformers"):
        methods.VJEPA("vit_tiny_patch16_224", pretrained=True)


@pytest.mark.parametrize("kind", ["video", "image"])
def test_salt_regresses_a_frozen_teacher_of_any_width(kind):
    make = encoder if kind == "video" else image_encoder
    teacher = make(1, depth=1)
    module = methods.SALT(make(), teacher=teacher, **PREDICTOR).double().train()
    clips = VIDEO.transpose(1, 2) if kind == "video" else VIDEO[:, 0]
    grid = (2, 4, 4) if kind == "video" else (4, 4)
    data = {kind: VIDEO if kind == "video" else clips, "label": torch.arange(2)}
    state = module(data, "fit")
    masks = masks_of(module, 2, grid)
    torch.testing.assert_close(state["loss"], expected_loss(module, teacher, clips, grid, masks))
    first = module.backbone(clips, ids_keep=masks[0].context_idx)
    torch.testing.assert_close(state["embedding"], first.embedding)
    state["loss"].backward()
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert not teacher.training
    module.eval()
    found = module(data, "validate")["embedding"]
    torch.testing.assert_close(found, module.backbone(clips).embedding)
    wide = make(2, embed_dim=48)
    other = methods.SALT(make().double(), teacher=wide.double(), **PREDICTOR).double()
    assert other(data, "fit")["predictions"][0].shape[-1] == 48


def test_salts_teacher_comes_from_the_first_stages_checkpoint(tmp_path):
    decoder = {"decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2}
    first = methods.MAE(image_encoder(3), masking=MultiBlockMasking(), **decoder)
    torch.save({"state_dict": first.state_dict(), "epoch": 1}, tmp_path / "stage1.ckpt")
    module = methods.SALT.from_checkpoint(
        tmp_path / "stage1.ckpt", image_encoder(), teacher=image_encoder(4), **PREDICTOR
    )
    for key, value in first.backbone.state_dict().items():
        assert torch.equal(module.teacher.backbone.state_dict()[key], value)
    torch.save(first.backbone.state_dict(), tmp_path / "bare.pt")
    again = methods.SALT.from_checkpoint(
        tmp_path / "bare.pt", image_encoder(), teacher=image_encoder(4), **PREDICTOR
    )
    images = VIDEO[:, 0].float()
    torch.testing.assert_close(again.teacher(images).patches, first.backbone(images).patches)
    with pytest.raises(ValueError, match=r"`teacher` has a grid of \(2, 2\), the student one of"):
        methods.SALT(image_encoder(), teacher=image_encoder(patch_size=16), **PREDICTOR)
