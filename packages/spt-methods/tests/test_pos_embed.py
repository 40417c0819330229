"""Tables against the official codes, rotations against their defining property."""

from pathlib import Path

import numpy as np
import pytest
import torch
from spt_methods.backbones import patches, pos_embed

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def tables():
    with np.load(GOLDEN / "sincos_pos_embed.npz") as file:
        return dict(file)


def agrees(table, expected):
    torch.testing.assert_close(table.double(), torch.tensor(expected).double(), rtol=0, atol=1e-6)


def test_one_and_two_dimensional_tables(tables):
    agrees(pos_embed.get_1d_sincos_pos_embed(16, 14), tables["ijepa_1d_D16_N14"])
    agrees(pos_embed.get_2d_sincos_pos_embed(64, 7), tables["mae_D64_G7"])
    agrees(pos_embed.get_2d_sincos_pos_embed(64, 7, cls_token=True), tables["mae_cls_D64_G7"])
    agrees(pos_embed.get_2d_sincos_pos_embed(16, 14), tables["mae_D16_G14"])
    agrees(pos_embed.get_2d_sincos_pos_embed(64, (6, 10)), tables["aim_D64_H6_W10"])


def test_three_dimensional_tables(tables):
    agrees(pos_embed.get_3d_sincos_pos_embed(32, (4, 4, 4)), tables["vjepa_3d_D32_T4_G4"])
    uniform = pos_embed.get_3d_sincos_pos_embed(32, (4, 4, 4), uniform=True)
    agrees(uniform, tables["vjepa_3d_uniform_D32_T4_G4"])


def test_the_general_form():
    square = pos_embed.get_sincos_pos_embed(8, 9, "2d")
    assert torch.equal(square, pos_embed.get_2d_sincos_pos_embed(8, 3))
    for arguments, text in [
        ((8, 8, "2d"), r"A grid of \(2, 2\) does not hold `num_patches` = 8"),
        ((6, 9, "2d"), "`embed_dim` must be a multiple of 4 in a 2-D table, got 6"),
        ((5, 9, "1d"), "`embed_dim` must be even for each axis, got 5"),
        ((8, 8, "3d"), "`grid_size` is needed for '3d'"),
        ((8, 8, "4d"), "`mode` must be '1d', '2d' or '3d'"),
    ]:
        with pytest.raises(ValueError, match=text):
            pos_embed.get_sincos_pos_embed(*arguments)


def test_interpolation_is_maes():
    with np.load(GOLDEN / "mae_interpolate_pos_embed.npz") as file:
        pos, expected = (torch.tensor(file[k]) for k in ("pos_embed", "pos_embed_new"))
    found = pos_embed.interpolate_pos_embed(pos, (7, 7), (10, 10), num_prefix_tokens=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert pos_embed.interpolate_pos_embed(pos, (7, 7), (7, 7), 1) is pos
    with pytest.raises(
        ValueError, match=r"holds 49 positions after 1 prefix tokens, not .*\(6, 7\)"
    ):
        pos_embed.interpolate_pos_embed(pos, (6, 7), (10, 10), 1)


@pytest.mark.parametrize(
    ("head_dim", "grid"), [(8, (5,)), (8, (3, 4)), (12, (2, 3, 2)), (6, (3, 3))]
)
def test_rotated_products_depend_on_differences_only(head_dim, grid):
    angles = pos_embed.rotary_angles(head_dim, grid).double()
    places = torch.cartesian_prod(*(torch.arange(s) for s in grid)).reshape(-1, len(grid))
    q, k = torch.randn(2, head_dim, dtype=torch.float64)
    rotated = [
        pos_embed.apply_rotary_emb(x.expand(len(places), -1), angles.cos(), angles.sin())
        for x in (q, k)
    ]
    products = rotated[0] @ rotated[1].T
    seen = {}
    for i, a in enumerate(places.tolist()):
        for j, b in enumerate(places.tolist()):
            step = tuple(x - y for x, y in zip(a, b, strict=True))
            assert products[i, j].item() == pytest.approx(
                seen.setdefault(step, products[i, j].item()), abs=1e-5
            )
    assert len({round(v, 6) for v in seen.values()}) == len(seen)  # and they do depend on them


def test_every_frequency_turns_one_pair_of_each_axis():
    angles = pos_embed.rotary_angles(16, (2, 2))
    row, column = angles[2], angles[1]  # one step along each axis
    frequencies = 10000.0 ** (-torch.arange(4) / 4)
    torch.testing.assert_close(row, torch.cat([frequencies, torch.zeros(4)]))
    torch.testing.assert_close(column, torch.cat([torch.zeros(4), frequencies]))


def test_prefix_tokens_are_not_turned_and_places_can_be_chosen():
    rope = pos_embed.RotaryPositionEmbedding(8, 2)
    x = torch.randn(2, 3, 1 + 6, 8)
    turned = rope(x, (2, 3))
    assert torch.equal(turned[:, :, 0], x[:, :, 0])
    keep = torch.tensor([[0, 4], [5, 2]])
    chosen = rope(torch.stack([x[b][:, [0, *(1 + keep[b])]] for b in range(2)]), (2, 3), keep)
    for b in range(2):
        torch.testing.assert_close(chosen[b, :, 1:], turned[b][:, 1 + keep[b]])
    half = rope(x.bfloat16(), (2, 3))  # a table made in one dtype serves all
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), turned, rtol=0, atol=0.05)
    with pytest.raises(ValueError, match="even and at least 4 for 2 axes, got 3"):
        pos_embed.RotaryPositionEmbedding(3, 2)


def test_timestep_embedding_by_hand():
    found = pos_embed.get_timestep_embed(torch.tensor([0.0, 2.0]), 5)
    expected = [[1, 1, 0, 0, 0], [np.cos(2), np.cos(0.02), np.sin(2), np.sin(0.02), 0]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32))


def test_patches_are_the_official_ones_in_their_order():
    with np.load(GOLDEN / "mae_patchify.npz") as file:
        arrays = {k: torch.tensor(file[k]) for k in file.files}
    images = arrays["imgs"]
    expected = arrays["patches"]
    p = images.shape[-1] // int(expected.shape[1] ** 0.5)
    found = patches.patchify(images, (3, p, p))
    official = expected.unflatten(2, (p, p, 3)).permute(0, 1, 4, 2, 3).flatten(2)  # channel last
    torch.testing.assert_close(found, official.to(found.dtype))


@pytest.mark.parametrize(
    ("shape", "size"),
    [((2, 3, 8, 12), (3, 4, 4)), ((5, 8, 8), 2), ((2, 4, 6), (3,)), ((1, 4, 4, 6, 6), (2, 3, 3))],
)
def test_patches_go_back_to_where_they_were(shape, size):
    x = torch.randn(shape)
    sides = (size, size) if isinstance(size, int) else size
    grid = [s // p for s, p in zip(shape[-len(sides) :], sides, strict=True)]
    assert torch.equal(patches.unpatchify(patches.patchify(x, size), size, grid), x)


def test_patches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"`patch_size` \(3, 3\) must divide"):
        patches.patchify(torch.zeros(1, 8, 8), 3)
    with pytest.raises(ValueError, match="6 patches form no uniform grid; give `grid_size`"):
        patches.unpatchify(torch.zeros(1, 6, 48), (3, 4, 4))
    with pytest.raises(ValueError, match="do not fit `patch_size`"):
        patches.unpatchify(torch.zeros(1, 4, 47), (3, 4, 4))
