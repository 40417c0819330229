"""MAE and I-JEPA against the official code: exact where the draws are given, else in distribution."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import spt_jax as spj
from flax import nnx
from spt_jax.losses import MAELoss
from spt_jax.methods.blocks import BlockSizes, draw_masks
from spt_jax.methods.ijepa import Predictor, block_loss, gathered_targets
from spt_jax.methods.mae import MAEDecoder, random_masking

GOLDEN = Path(__file__).parent / "golden"
GRIDS = {"vit_h14": (16, 16), "vit_b16": (14, 14)}


def facts(name):
    return json.loads((GOLDEN / name).read_text())


def sizes(grid):
    return BlockSizes(grid, (0.15, 0.2), (0.75, 1.5)), BlockSizes(grid, (0.85, 1.0), (1.0, 1.0))


def test_a_mae_mask_follows_from_its_noise():
    stored = np.load(GOLDEN / "mae_random_masking.npz")
    for ratio in (60, 75, 90):
        keep, mask = random_masking(jnp.asarray(stored["noise"]), ratio / 100)
        assert np.array_equal(keep, stored[f"ids_keep_{ratio}"])
        assert np.array_equal(mask, stored[f"mask_{ratio}"])


def test_the_number_of_kept_patches_is_the_official_one():
    for row in facts("mae_len_keep.json")["rows"]:
        noise = jax.ShapeDtypeStruct((1, row["L"]), jnp.float32)
        if row["kept"] == 0:
            with pytest.raises(ValueError, match="leaves none of"):
                random_masking(noise, row["ratio"])
        else:
            keep, _ = jax.eval_shape(lambda x, row=row: random_masking(x, row["ratio"]), noise)
            assert keep.shape == (1, row["kept"])


def test_mae_from_image_to_loss():
    stored = np.load(GOLDEN / "mae_forward.npz")
    state = {name[2:]: stored[name] for name in stored.files if name.startswith("w.")}
    settings = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 3}
    encoder = spj.backbone.ViT(rngs=nnx.Rngs(0), pos_embed="sincos", **settings)
    decoder = MAEDecoder(24, 192, 1, rngs=nnx.Rngs(0), dim=16, depth=1, num_heads=2)
    tables = ("pos_embed", "decoder_pos_embed")
    inside = [name for name in state if name.startswith(("decoder_", "mask_token"))]
    weights = {name: value for name, value in state.items() if name not in tables}
    spj.from_torch(encoder, {k: v for k, v in weights.items() if k not in inside})
    spj.from_torch(decoder, {k: v for k, v in weights.items() if k in inside})
    images = jnp.asarray(stored["imgs"]).transpose(0, 2, 3, 1)
    keep, mask = random_masking(jnp.asarray(stored["noise"]), 0.75)
    encode = nnx.jit(lambda model, x, keep: model(x, keep=keep, tokens=True))
    latent = encode(encoder, images, keep)
    np.testing.assert_allclose(latent, stored["latent"], atol=5e-5)
    pred = nnx.jit(lambda model, *args: model(*args, (4, 4)))(decoder, latent, keep)
    np.testing.assert_allclose(pred, stored["pred"], atol=5e-5)
    for norm, name in ((True, "loss_norm_pix"), (False, "loss_raw")):
        assert float(MAELoss(8, norm)(pred, images, mask)) == pytest.approx(
            float(stored[name]), rel=1e-4
        )


@pytest.mark.parametrize("name", GRIDS)
def test_the_block_sizes_of_ijepa(name):
    stored = np.load(GOLDEN / "ijepa_block_sizes.npz")
    for which, kind in enumerate(("target", "context")):
        h, w = sizes(GRIDS[name])[which].sides(jnp.asarray(stored[f"{name}_u"][:, which]))
        assert np.array_equal(np.stack([h, w], 1), stored[f"{name}_{kind}_hw"])


def assert_same_mean(own, summary):
    """The rule of the stored statistics: four standard errors of the difference."""
    error = (summary["se"] ** 2 + summary["sd"] ** 2 / len(own)) ** 0.5
    assert abs(np.mean(own) - summary["mean"]) <= 4 * error


@pytest.mark.parametrize("name", GRIDS)
def test_the_masks_of_ijepa(name):
    stored, grid, number = facts("ijepa_mask_stats.json")["configurations"][name], GRIDS[name], 400
    draw = jax.jit(jax.vmap(lambda key: draw_masks(key, 16, *sizes(grid), 4)))
    keys = jax.random.split(jax.random.key(0), number)
    (_, seen), (places, real) = jax.device_get(draw(keys))
    assert_same_mean(seen.sum(-1).mean(-1), stored["context_length_before_truncation"])
    lengths = real.sum(-1)  # (batches, images, targets): one size per batch
    assert (lengths == lengths[:, :1, :1]).all()
    assert_same_mean(lengths[:, 0, 0], stored["target_length"])
    histogram = stored["target_length_histogram"]
    mine = np.array([(lengths[:, 0, 0] == value).mean() for value in histogram["values"]])
    distance = 0.5 * (np.abs(mine - histogram["fractions"]).sum() + 1 - mine.sum())
    n = 1 / stored["batches"] + 1 / number
    assert distance <= (2 * len(mine) / np.pi * n) ** 0.5
    covered = np.zeros((number, 16, grid[0] * grid[1]), bool)  # by any of the targets
    batch, image = (i[..., None, None] for i in np.indices((number, 16)))
    np.logical_or.at(covered, (batch, image, places), real)
    wanted = np.asarray(stored["position_probability_target"]).ravel()
    error = np.sqrt(wanted * (1 - wanted) * n / 16)
    assert (np.abs(covered.mean((0, 1)) - wanted) <= 2 * 5 * error + 1e-4).all()


def test_the_targets_and_the_loss_of_ijepa():
    stored = np.load(GOLDEN / "ijepa_targets_loss.npz")
    places = jnp.asarray(stored["masks_pred"]).transpose(1, 0, 2).astype(int)  # (N, T, M)
    targets = gathered_targets(jnp.asarray(stored["h"]), places)

    def ours(x):  # theirs has the target block outside, the image inside
        return jnp.asarray(x).reshape(4, 3, 4, 12).swapaxes(0, 1)

    np.testing.assert_allclose(targets, ours(stored["targets"]), atol=1e-5)
    real = jnp.ones(places.shape, bool)
    loss, grad = jax.value_and_grad(block_loss)(ours(stored["z"]), targets, real)
    assert float(loss) == pytest.approx(float(stored["loss"]), rel=1e-5)
    np.testing.assert_allclose(grad, ours(stored["grad_z"]), atol=1e-6)


def test_the_predictor_of_ijepa():
    stored = np.load(GOLDEN / "ijepa_predictor.npz")
    state = {name[2:]: stored[name] for name in stored.files if name.startswith("w.")}
    state.pop("predictor_pos_embed")  # fixed, and computed here
    predictor = Predictor(12, rngs=nnx.Rngs(0), dim=16, depth=2, num_heads=2)
    spj.from_torch(predictor, state)
    keep = jnp.asarray(stored["masks_enc"]).astype(int)
    places = jnp.asarray(stored["masks_pred"]).transpose(1, 0, 2).astype(int)
    seen, real = jnp.ones(keep.shape, bool), jnp.ones(places.shape, bool)
    predict = nnx.jit(lambda model, *args: model(*args, (4, 4)))
    found = predict(predictor, jnp.asarray(stored["x"]), keep, seen, places, real)
    expected = stored["pred"].reshape(4, 3, 4, 12).swapaxes(0, 1)
    np.testing.assert_allclose(found, expected, atol=2e-5)
