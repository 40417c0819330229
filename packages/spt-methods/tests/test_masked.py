"""The masked and predictive methods against their papers and the official codes' outputs."""

from pathlib import Path

import lightning as pl
import numpy as np
import pytest
import torch
from spt_losses import hog_targets, patch_pixels, standardize_patches
from spt_methods import methods
from spt_methods.backbones import BlockPredictor, RandomProjectionTokenizer, ViTTokens, sines
from spt_methods.backbones.vq import Codebook
from spt_methods.masking import keep_tokens
from spt_methods.masking.places import hide
from spt_methods.methods.simmim import PixelDecoder
from timm.models.beit import Beit
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

GOLDEN = Path(__file__).parent / "golden"
G = torch.Generator().manual_seed(0)
IMAGES = torch.rand(3, 3, 32, 32, generator=G, dtype=torch.float64)
BATCH = {"image": IMAGES, "label": torch.arange(3)}


def official(name):
    with np.load(GOLDEN / name) as file:
        return {k: torch.tensor(file[k]) for k in file.files}


def vit(depth=2, **kwargs):
    torch.manual_seed(0)
    return VisionTransformer(
        img_size=32, patch_size=8, embed_dim=24, depth=depth, num_heads=3, num_classes=0, **kwargs
    )


def build(name, **kwargs):
    torch.manual_seed(0)
    return getattr(methods, name)(kwargs.pop("encoder", None) or vit(), **kwargs).double().train()


DECODER = {"decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2}


# --- MAE -----------------------------------------------------------------------------------------


def test_mae_encodes_visible_patches_alone_and_counts_hidden_ones_alone():
    module = build("MAE", **DECODER)
    lengths = []
    module.backbone.vit.blocks[0].register_forward_hook(lambda m, i, o: lengths.append(o.shape[1]))
    state = module(BATCH, "fit")
    assert lengths == [1 + 4]  # class token and a quarter of 16
    assert state["mask"].sum(1).tolist() == [12.0] * 3
    target = standardize_patches(patch_pixels(IMAGES, 8))
    error = (state["predictions"] - target).square().mean(2)
    expected = (error * state["mask"]).sum() / state["mask"].sum()
    torch.testing.assert_close(state["loss"], expected)


def test_mae_does_not_see_what_is_hidden():
    module = build("MAE", **DECODER)
    first = module(BATCH, "fit")
    hidden = first["mask"].view(3, 4, 4).repeat_interleave(8, 1).repeat_interleave(8, 2).bool()
    changed = torch.where(hidden.unsqueeze(1), torch.rand_like(IMAGES), IMAGES)
    module.masking._draw = 0  # the same places
    again = module({"image": changed}, "fit")
    assert torch.equal(again["mask"], first["mask"])
    torch.testing.assert_close(again["predictions"], first["predictions"])
    torch.testing.assert_close(again["embedding"], first["embedding"])


def test_mae_begins_with_fixed_sines_and_leaves_given_weights_alone():
    named = methods.MAE("vit_tiny_patch16_224", image_size=32, **DECODER)
    positions = named.backbone.vit.pos_embed
    table = official("sincos_pos_embed.npz")["mae_cls_D64_G7"]
    assert not positions.requires_grad
    assert positions[0, 0].abs().sum() == 0
    model = VisionTransformer(
        img_size=56, patch_size=8, embed_dim=64, depth=1, num_heads=2, num_classes=0
    )
    encoder = ViTTokens(model)
    sines.fix_positions(encoder)
    torch.testing.assert_close(model.pos_embed[0], table.float(), rtol=0, atol=1e-6)
    given = vit()
    before = {k: v.clone() for k, v in given.state_dict().items()}
    methods.MAE(given, **DECODER)
    assert all(torch.equal(v, before[k]) for k, v in given.state_dict().items())


# --- SimMIM --------------------------------------------------------------------------------------


def test_simmims_decoder_is_the_official_one():
    arrays = official("simmim_loss_vit.npz")
    decoder = PixelDecoder(10, 16, 3).double()
    decoder.projection.weight.data = arrays["decoder_weight"].double()
    decoder.projection.bias.data = arrays["decoder_bias"].double()
    patches = arrays["z"].double().flatten(2).mT
    torch.testing.assert_close(
        decoder(patches, (4, 4)), arrays["x_rec"].double(), rtol=0, atol=1e-5
    )


def test_simmim_counts_masked_pixels_of_squares_of_patches():
    module = build("SimMIM", mask_size=16)
    state = module(BATCH, "fit")
    mask = state["mask"].view(3, 4, 4)
    squares = mask.view(3, 2, 2, 2, 2).transpose(2, 3).flatten(3).float()
    assert set(squares.mean(3).flatten().tolist()) <= {0.0, 1.0}  # whole squares
    pixels = mask.repeat_interleave(8, 1).repeat_interleave(8, 2).unsqueeze(1)
    error = ((state["predictions"] - IMAGES).abs() * pixels).sum()
    torch.testing.assert_close(state["loss"], error / pixels.sum() / 3)
    with pytest.raises(ValueError, match="must be a multiple of the patch's 8, got 12"):
        build("SimMIM", mask_size=12)


def test_a_transformer_with_relative_positions_is_timms_and_takes_mask_tokens():
    torch.manual_seed(0)
    for shared in (False, True):
        model = Beit(
            img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=0,
            use_abs_pos_emb=shared, use_rel_pos_bias=not shared, use_shared_rel_pos_bias=shared,
            init_values=0.1,
        ).double().eval()  # fmt: skip
        encoder = ViTTokens(model, mask_token=True).double()
        torch.testing.assert_close(encoder.forward_features(IMAGES), model.forward_features(IMAGES))
        torch.testing.assert_close(encoder(IMAGES).embedding, model(IMAGES))
    module = build("SimMIM", encoder=encoder, mask_size=16)
    module(BATCH, "fit")["loss"].backward()
    assert model.rel_pos_bias.relative_position_bias_table.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="has relative position biases, which are for whole grids"):
        encoder(IMAGES, ids_keep=torch.zeros(3, 2, dtype=torch.int64))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", ["SimMIM", "BEiT", "Data2Vec"])
def test_the_encoder_of_the_paper_is_the_default_and_has_relative_positions_alone(name, shared):
    own = {"BEiT": {"tokenizer": RandomProjectionTokenizer(8)}, "Data2Vec": {"top_k_blocks": 1}}
    kinds = {"use_rel_pos_bias": not shared, "use_shared_rel_pos_bias": shared}
    small = {"embed_dim": 24, "depth": 1, "num_heads": 3, **kinds}
    module = getattr(methods, name)(image_size=64, encoder_kwargs=small, **own.get(name, {}))
    encoder = getattr(module.backbone, "student", module.backbone)
    assert isinstance(encoder.vit, Beit)
    assert encoder.vit.pos_embed is None
    module.train()({"image": torch.rand(4, 3, 64, 64, generator=G)}, "fit")["loss"].backward()
    tables = [p for n, p in encoder.named_parameters() if "relative_position_bias_table" in n]
    assert [table.grad is not None for table in tables] == [True]


# --- MaskFeat, data2vec --------------------------------------------------------------------------


def test_maskfeat_predicts_the_histograms_of_hidden_patches():
    module = build("MaskFeat", hog_cell=4)
    state = module(BATCH, "fit")
    target = hog_targets(IMAGES, 8, cell=4)
    assert state["predictions"].shape == target.shape == (3, 16, 108)
    error = (state["predictions"] - target).square().mean(2)
    expected = error[state["mask"]].mean()
    torch.testing.assert_close(state["loss"], expected)


def test_data2vec_regresses_the_normalised_mean_of_the_teachers_blocks():
    module = build("Data2Vec", top_k_blocks=2, beta=2.0)
    with torch.no_grad():
        for p in module.backbone.teacher.parameters():
            p.add_(0.01 * torch.randn(p.shape, generator=G, dtype=p.dtype))
    state = module(BATCH, "fit")
    teacher, norm = module.backbone.teacher, lambda x: F.layer_norm(x, (24,))
    x = teacher.vit._pos_embed(teacher.vit.patch_embed(IMAGES))
    outputs = []
    for block in teacher.vit.blocks:
        x = block(x)
        outputs.append(norm(x[:, 1:]))
    target = norm(sum(outputs) / 2)[state["mask"]]
    torch.testing.assert_close(state["target"], target)
    student = module.backbone.student(IMAGES, mask=state["mask"]).patches[state["mask"]]
    torch.testing.assert_close(state["predictions"], module.regressor(student))
    expected = F.smooth_l1_loss(state["predictions"], target, beta=2.0)
    torch.testing.assert_close(state["loss"], expected)
    assert not state["target"].requires_grad
    with pytest.raises(ValueError, match="between 1 and the 2 blocks"):
        build("Data2Vec", top_k_blocks=3)


def test_the_places_of_a_mask():
    masks = torch.tensor([[True, False, True], [False, False, True]])
    hidden = hide(lambda size, grid: masks, 2, (1, 3), torch.device("cpu"))
    patches = torch.arange(12.0).view(2, 3, 2)
    assert torch.equal(hidden.of(patches), patches[masks])


# --- BEiT ----------------------------------------------------------------------------------------


def test_beit_classifies_the_tokens_of_hidden_patches_only():
    tokenizer = RandomProjectionTokenizer(11, 8)
    module = build("BEiT", tokenizer=tokenizer.double())
    state = module(BATCH, "fit")
    tokens = tokenizer(IMAGES)
    assert torch.equal(state["targets"], tokens[state["mask"]])
    assert state["logits"].shape == (int(state["mask"].sum()), 11)
    torch.testing.assert_close(state["loss"], F.cross_entropy(state["logits"], state["targets"]))
    assert module.train().tokenizer.tokenizer.training is False


def test_beit_takes_tokens_of_a_second_size_and_refuses_what_does_not_fit():
    small = F.interpolate(IMAGES, size=16)
    module = build("BEiT", tokenizer=lambda x: x.mean(1)[:, ::4, ::4].mul(8).long(), vocab_size=8)
    state = module({**BATCH, "token_image": small}, "fit")
    expected = small.mean(1)[:, ::4, ::4].mul(8).long().flatten(1)[state["mask"]]
    assert torch.equal(state["targets"], expected)
    with pytest.raises(ValueError, match=r"one integer for each of the 4 x 4 patches.*\(3, 64\)"):
        module(BATCH, "fit")
    with pytest.raises(TypeError, match="must be callable or have `tokenize`, got int"):
        build("BEiT", tokenizer=3)
    with pytest.raises(TypeError, match="tokenizer"):
        methods.BEiT(vit())


def test_a_trained_tokenizer_reconstructs_and_its_tokens_train_beit(tmp_path):
    torch.manual_seed(0)
    colours = torch.eye(3)[torch.randint(3, (64, 16), generator=G)]  # 16 patches of one colour each
    images = colours.mT.view(64, 3, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    tokenizer = methods.VQTokenizer(
        8,
        8,
        hidden_dim=16,
        codebook_dim=4,
        optim={"optimizer": {"type": "Adam", "lr": 5e-3}, "scheduler": None},
    )
    loader = DataLoader([{"image": x} for x in images], batch_size=16, shuffle=True)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=60, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    before = F.mse_loss(tokenizer({"image": images}, "fit")["reconstruction"], images)
    trainer.fit(tokenizer, loader)
    with torch.no_grad():
        after = tokenizer.eval()({"image": images}, "fit")["loss_recon"]
    assert after < before / 5
    tokens = tokenizer.tokenize(images)
    kinds = colours.argmax(2)
    inner = [set(tokens[kinds == k].tolist()) for k in range(3)]
    assert tokens.shape == (64, 16)
    assert len(tokens.unique()) > 1
    assert not (inner[0] == inner[1] == inner[2])
    state = build("BEiT", tokenizer=tokenizer.double())({"image": images.double()}, "fit")
    assert torch.isfinite(state["loss"])


def test_codes_follow_the_mean_of_their_vectors_and_unused_ones_begin_again():
    book = Codebook(3, 1, decay=0.0, least_used=0.5)
    book.codes.copy_(torch.tensor([[0.0], [10.0], [100.0]]))
    maps = torch.tensor([1.0, 2.0, 9.0, 12.0]).view(1, 1, 2, 2).requires_grad_()
    out = book.train()(maps)
    assert out.tokens.flatten().tolist() == [0, 0, 1, 1]
    assert out.codes.flatten().tolist() == [0.0, 0.0, 10.0, 10.0]  # those of before
    torch.testing.assert_close(out.commitment, torch.tensor((1 + 4 + 1 + 4) / 4))
    assert book.codes[:2].flatten().tolist() == [1.5, 10.5]
    assert book.codes[2].item() in (1.0, 2.0, 9.0, 12.0)
    out.codes.sum().backward()
    assert torch.equal(maps.grad, torch.ones_like(maps))  # straight through
    codes = book.codes.clone()
    book.eval()(maps)
    assert torch.equal(book.codes, codes)
    with pytest.raises(ValueError, match="`patch_size` must be a power of two"):
        methods.VQTokenizer(8, 14)
    with pytest.raises(ValueError, match=r"`decay` must be in \[0, 1\)"):
        Codebook(3, 1, decay=1.0)


# --- iBOT, MSN -----------------------------------------------------------------------------------

HEAD = {"projector_hidden_dim": 16, "projector_bottleneck_dim": 8}
CROPS = {f"global_{i}": {"image": IMAGES + i, "label": torch.arange(3)} for i in range(2)}
LOCALS = {f"local_{i}": {"image": IMAGES[..., :16, :16] + i} for i in range(2)}


def test_ibot_is_dino_on_class_tokens_and_cross_entropy_on_hidden_patches():
    encoder = vit(dynamic_img_size=True)
    module = build("iBOT", encoder=encoder, n_cls_prototypes=7, mask_probability=1.0,
                   temperature_patch_teacher_warmup=0.06, **HEAD)  # fmt: skip
    module.dino_loss(torch.zeros(2, 3, 7), torch.zeros(2, 3, 7))
    state = module({**CROPS, **LOCALS}, "fit")
    images, mask = torch.cat([IMAGES, IMAGES + 1]), state["mask"]
    teacher, student = module.backbone.teacher(images), module.backbone.student(images, mask=mask)
    head_t, head_s = module.projector.teacher, module.projector.student
    temperature, tau = 0.04, 0.1
    target = (head_t(teacher.embedding) / temperature).softmax(1).chunk(2)
    logits = [*head_s(student.embedding).chunk(2)]
    logits += [head_s(module.backbone.student(v["image"]).embedding) for v in LOCALS.values()]
    pairs = [
        -(t * (s / tau).log_softmax(1)).sum(1).mean()
        for i, t in enumerate(target)
        for j, s in enumerate(logits)
        if i != j
    ]
    torch.testing.assert_close(state["loss_cls"], torch.stack(pairs).mean())
    p = (head_t(teacher.patches) / 0.06).softmax(2)  # the patches' own temperature
    error = -(p * (head_s(student.patches) / tau).log_softmax(2)).sum(2)
    per_image = (error * mask).sum(1) / mask.sum(1).clamp(min=1)
    torch.testing.assert_close(state["loss_patch"], per_image.mean())
    torch.testing.assert_close(state["loss"], state["loss_cls"] + state["loss_patch"])
    assert head_s.patch_layer is None  # one head for both
    assert not head_s.last_layer.gain.requires_grad
    free = build("iBOT", n_cls_prototypes=7, norm_last_layer=False, **HEAD)
    assert free.projector.student.last_layer.gain.requires_grad


def test_ibot_runs_its_head_on_hidden_patches_alone():
    module = build("iBOT", n_cls_prototypes=7, n_patch_prototypes=5, **HEAD)
    rows = []
    module.projector.student.patch_layer.register_forward_hook(lambda m, i, o: rows.append(len(o)))
    state = module(CROPS, "fit")
    assert rows == [int(state["mask"].sum())]
    names = [c.layers for c in module.method_callbacks() if hasattr(c, "layers")]
    assert names == [("projector.student.last_layer", "projector.student.patch_layer")]


def test_msn_drops_patches_of_masked_crops_and_none_of_the_others():
    encoder = vit(dynamic_img_size=True)
    module = build("MSN", encoder=encoder, n_prototypes=7, projector_hidden_dim=16,
                   projector_dim=8, mask_ratio=0.5)  # fmt: skip
    lengths = []
    block = module.backbone.student.vit.blocks[0]
    block.register_forward_hook(lambda m, i, o: lengths.append(tuple(o.shape[:2])))
    state = module({**CROPS, **LOCALS}, "fit")
    assert lengths == [(3, 1 + 8), (6, 1 + 4)]
    assert state["anchors"].shape == (9, 8)
    assert len(state["embedding"]) == len(state["label"]) == 3
    state["loss"].backward()
    assert module.prototypes.grad.abs().sum() > 0
    assert all(p.grad is None for p in module.backbone.teacher.parameters())
    assert "sharpen=0.25" in repr(module.msn_loss)
    with pytest.raises(ValueError, match="at least one more crop, got 1"):
        module({"global_0": CROPS["global_0"]}, "fit")


# --- I-JEPA --------------------------------------------------------------------------------------


def test_the_predictor_of_the_official_code():
    arrays = official("ijepa_predictor.npz")
    weights = {k.removeprefix("w."): v.double() for k, v in arrays.items() if k.startswith("w.")}
    predictor = BlockPredictor(12, weights["predictor_pos_embed"][0], 2, 2).double()
    renamed = {"norm_attn": "norm1", "norm_mlp": "norm2"}
    outer = {"embed": "predictor_embed", "norm": "predictor_norm", "project": "predictor_proj"}
    state = {}
    for key in predictor.state_dict():
        first, *rest = key.split(".")
        if first == "blocks":
            index, part, *tail = rest
            name = ".".join(["predictor_blocks", index, renamed.get(part, part), *tail])
        else:
            name = ".".join([outer.get(first, first), *rest])
        state[key] = weights[name]
    predictor.load_state_dict(state)
    out = predictor(arrays["x"].double(), arrays["masks_enc"].long(), arrays["masks_pred"].long())
    torch.testing.assert_close(out, arrays["pred"], rtol=0, atol=1e-9)


SIZES = {"predictor_embed_dim": 16, "predictor_depth": 1, "predictor_num_heads": 2, "min_keep": 2}


def test_ijepa_predicts_each_block_from_the_context_alone():
    module = build(
        "IJEPA", encoder=vit(class_token=False, global_pool="avg", fc_norm=False), **SIZES
    )
    drawn = []
    module.masking.register_forward_hook(lambda m, i, o: drawn.append(o))
    state = module(BATCH, "fit")
    (masks,) = drawn
    whole = module.backbone.teacher(IMAGES).patches
    target = F.layer_norm(whole, (24,))
    for block, places in enumerate(masks.target_idx):
        rows = state["targets"][3 * block : 3 * block + 3]
        torch.testing.assert_close(rows, keep_tokens(target, places))
    expected = F.smooth_l1_loss(state["predictions"], state["targets"])
    torch.testing.assert_close(state["loss"], expected)
    assert len({tuple(row.tolist()) for row in masks.target_idx[0]}) > 1  # places per image
    torch.testing.assert_close(state["embedding"], whole.mean(1))
    outside = masks.mask.view(3, 4, 4).repeat_interleave(8, 1).repeat_interleave(8, 2).bool()
    changed = torch.where(outside.unsqueeze(1), torch.rand_like(IMAGES), IMAGES)
    module.masking._draw = 0
    again = module({"image": changed}, "fit")
    torch.testing.assert_close(again["predictions"], state["predictions"])


def test_ijepa_evaluates_the_teacher_or_the_student():
    module = build("IJEPA", **SIZES)
    with torch.no_grad():
        for p in module.backbone.teacher.parameters():
            p.mul_(0.5)
    teacher = module(BATCH, "validate")["embedding"]
    torch.testing.assert_close(teacher, module.backbone.teacher(IMAGES).embedding)
    module.embedding_source = "student"
    torch.testing.assert_close(
        module(BATCH, "validate")["embedding"], module.backbone.student(IMAGES).embedding
    )
    with pytest.raises(ValueError, match="`embedding_source` must be 'teacher' or 'student'"):
        build("IJEPA", embedding_source="both", **SIZES)


def test_the_momentum_of_ijepa_is_linear_in_the_step():
    module = build("IJEPA", ema_decay_start=0.9, ema_decay_end=1.0, **SIZES)
    for step in (0, 3, 10):
        module.backbone.update_ema_coefficient(step, 10)
        assert module.backbone.ema_coefficient.item() == pytest.approx(0.9 + 0.01 * step)
    with pytest.raises(ValueError, match="`schedule` must be 'cosine' or 'linear'"):
        type(module.backbone)(nn.Linear(1, 1), schedule="step")


def test_a_named_ijepa_encoder_has_no_class_token_and_small_late_blocks():
    module = methods.IJEPA("vit_tiny_patch16_224", image_size=32, encoder_kwargs={"depth": 8})
    model = module.backbone.student.vit
    assert model.cls_token is None
    assert not model.pos_embed.requires_grad
    ratio = model.blocks[0].mlp.fc2.weight.std() / model.blocks[7].mlp.fc2.weight.std()
    assert ratio.item() == pytest.approx(8**0.5, rel=0.05)
