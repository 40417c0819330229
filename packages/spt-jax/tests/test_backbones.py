"""Shapes, sizes and parts of the encoders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import spt_jax as spj
from flax import nnx
from spt_jax.backbone.layers import max_pool
from spt_jax.backbone.positions import cubic_weights, interpolate_positions, rotary_angles, rotate

pytestmark = pytest.mark.slow

B = spj.backbone
COUNTS = {  # torchvision's and timm's, without heads
    B.ResNet9: 6_568_000,
    B.resnet18: 11_176_512,
    B.resnet34: 21_284_672,
    B.resnet50: 23_508_032,
    B.resnet101: 42_500_160,
    B.resnet152: 58_143_808,
    B.ConvMixer: 740_864,
    B.vit_tiny: 5_524_416,
    B.vit_small: 21_665_664,
    B.vit_base: 85_798_656,
    B.vit_large: 303_301_632,
}


@pytest.mark.parametrize("build", COUNTS, ids=lambda build: build.__name__)
def test_parameter_counts(build):
    model = nnx.eval_shape(lambda: build(rngs=nnx.Rngs(0)))
    sizes = [leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))]
    assert sum(sizes) == COUNTS[build]


def out_shape(model, *shape):
    return jax.eval_shape(lambda x: nnx.merge(*nnx.split(model))(x), jnp.zeros(shape)).shape


@pytest.mark.parametrize("low_resolution", [False, True])
@pytest.mark.parametrize("block", [B.BasicBlock, B.Bottleneck])
def test_small_resnets(block, low_resolution):
    model = B.ResNet(
        block, (1, 1), rngs=nnx.Rngs(0), widths=(2, 4), in_channels=1, low_resolution=low_resolution
    )
    model.eval()
    assert model.embed_dim == 4 * block.expansion
    assert out_shape(model, 2, 12, 12, 1) == (2, model.embed_dim)


def test_other_small_encoders():
    rngs = nnx.Rngs(0)
    for model, shape in (
        (B.ResNet9(rngs=rngs, width=2), (2, 8, 8, 3)),
        (B.ConvMixer(rngs=rngs, dim=4, depth=1, kernel_size=3, patch_size=2), (2, 8, 8, 3)),
        (B.MLP(12, (5, 3), rngs=rngs), (2, 2, 2, 3)),
    ):
        model.eval()
        assert out_shape(model, *shape) == (2, model.embed_dim)


VIT = {"img_size": 8, "patch_size": 2, "embed_dim": 8, "depth": 2, "num_heads": 2}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_registers": 3, "qk_norm": True, "mlp_type": "swiglu", "drop_path": 0.5},
        {"rope": True, "pos_embed": "none", "class_token": False},
        {"pos_embed": "sincos", "mask_token": True},
    ],
    ids=["plain", "registers", "rope", "sincos"],
)
def test_vits(settings):
    @nnx.jit(static_argnames="tokens")
    def run(model, x, keep=None, valid=None, tokens=False):
        return model(x, keep=keep, valid=valid, tokens=tokens)

    model = B.ViT(rngs=nnx.Rngs(0), **VIT, **settings)
    model.eval()
    x = jnp.asarray(np.random.default_rng(0).random((2, 8, 8, 3), dtype=np.float32))
    prefix = model.num_prefix_tokens
    tokens = run(model, x, tokens=True)
    assert tokens.shape == (2, prefix + 16, 8)
    pooled = run(model, x)
    expected = tokens[:, 0] if settings.get("class_token", True) else tokens[:, prefix:].mean(1)
    np.testing.assert_allclose(pooled, expected, atol=1e-6)
    assert run(model, x[:, :4, :4]).shape == (2, 8)  # a small crop: positions are interpolated
    order = jnp.asarray(np.stack([np.random.default_rng(i).permutation(16) for i in range(2)]))
    shuffled = run(model, x, keep=order, tokens=True)  # every patch, in another order
    np.testing.assert_allclose(
        shuffled[:, prefix:],
        jnp.take_along_axis(tokens[:, prefix:], order[..., None], axis=1),
        atol=2e-5,
    )
    kept = run(model, x, keep=order[:, :5], tokens=True)
    valid = jnp.arange(16)[None] < jnp.asarray([[5], [5]])
    marked = run(
        model, x, keep=order, valid=valid, tokens=True
    )  # the others are there and seen by none
    np.testing.assert_allclose(marked[:, : prefix + 5], kept, atol=2e-5)


def test_masked_patches_do_not_matter():
    model = B.ViT(rngs=nnx.Rngs(0), mask_token=True, **VIT)
    mask = jnp.zeros((1, 16)).at[0, 0].set(1)
    x = jnp.ones((1, 8, 8, 3))
    changed = x.at[0, :2, :2].set(5.0)
    np.testing.assert_allclose(model(x, mask=mask), model(changed, mask=mask), atol=1e-6)
    assert not np.allclose(model(x), model(changed))
    with pytest.raises(ValueError, match="has no mask token"):
        B.ViT(rngs=nnx.Rngs(0), **VIT)(x, mask=mask)


def test_drop_path_leaves_whole_samples_out():
    drop = B.DropPath(0.5, rngs=nnx.Rngs(0))
    y = np.asarray(drop(jnp.ones((64, 3, 2))))
    assert set(np.unique(y)) == {0.0, 2.0}
    assert all(len(np.unique(sample)) == 1 for sample in y)
    drop.eval()
    assert np.array_equal(drop(jnp.ones((4, 3, 2))), np.ones((4, 3, 2)))


def test_pooling_pads_as_torchvision():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    assert max_pool(x)[0, :, :, 0].tolist() == [[5.0, 7.0], [13.0, 15.0]]


def test_positions():
    table = B.sincos_2d(8, (2, 3), cls_token=True)
    assert table.shape == (7, 8)
    assert not table[0].any()
    np.testing.assert_allclose(table[1], [0, 0, 1, 1, 0, 0, 1, 1], atol=1e-7)
    np.testing.assert_allclose(cubic_weights(5, 9).sum(1), 1, rtol=1e-6)
    with pytest.raises(ValueError, match="holds 5 positions, not 1 and a grid of"):
        interpolate_positions(jnp.zeros((1, 5, 2)), (3, 3), (2, 2), 1)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 7, 2, 8)).astype(np.float32))
    turned = rotate(x, jnp.asarray(rotary_angles(8, (2, 3))))
    assert np.array_equal(turned[:, :1], x[:, :1])  # the prefix stays
    np.testing.assert_allclose(
        jnp.linalg.norm(turned, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-5
    )


def test_a_dtype_is_for_the_computation():
    model = B.MLP(12, (5, 3), rngs=nnx.Rngs(0), dtype=jnp.bfloat16)
    assert model(jnp.ones((2, 12))).dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))} == {jnp.dtype("float32")}


def test_wrong_settings_are_named():
    rngs = nnx.Rngs(0)
    with pytest.raises(ValueError, match="one entry per stage"):
        B.ResNet(B.BasicBlock, (1,), rngs=rngs, widths=(2, 4))
    with pytest.raises(ValueError, match="widths of its layers"):
        B.MLP(3, [], rngs=rngs)
    with pytest.raises(ValueError, match="`patch_size` 3 must divide the images' sides"):
        B.ViT(rngs=rngs, img_size=8, patch_size=3)
    with pytest.raises(ValueError, match="`pos_embed` must be 'learned'"):
        B.ViT(rngs=rngs, pos_embed="rope")
    with pytest.raises(ValueError, match="multiple of `num_heads`"):
        B.Block(6, 4, rngs=rngs)
    with pytest.raises(ValueError, match="`mlp_type` must be"):
        B.Block(6, 2, rngs=rngs, mlp_type="relu")
    with pytest.raises(ValueError, match="Unknown `last_norm` 'layer'"):
        B.mlp_head(3, (2,), rngs=rngs, last_norm="layer")


def test_torch_linear_layers_are_copied():
    mlp = B.MLP(3, (4, 2), rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    state = {
        "0.weight": rng.normal(size=(4, 3)).astype(np.float32),
        "0.bias": rng.normal(size=4).astype(np.float32),
        "2.weight": rng.normal(size=(2, 4)).astype(np.float32),
        "2.bias": rng.normal(size=2).astype(np.float32),
    }
    spj.utils.copy_torch_params_(mlp, state)
    x = rng.normal(size=(5, 3)).astype(np.float32)
    hidden = np.maximum(x @ state["0.weight"].T + state["0.bias"], 0)
    np.testing.assert_allclose(
        mlp(x), hidden @ state["2.weight"].T + state["2.bias"], rtol=1e-5, atol=1e-6
    )
    with pytest.raises(ValueError, match="1 linear layers in `src` and 2 in `dst`"):
        spj.utils.copy_torch_params_(mlp, {"0.weight": state["0.weight"]})
