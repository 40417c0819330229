"""Masks of a batch against the statistics and examples of the official code."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from spt_augment import BatchBlockwiseMask, BatchMultiBlockMask, BatchRandomMask
from spt_augment._random import drawing
from spt_augment.masks._grid import rectangles
from spt_augment.masks.multiblock import block_size, indices
from spt_augment.masks.random import num_kept, split_by_noise

GOLDEN = Path(__file__).parent / "golden"
BEIT = json.loads((GOLDEN / "beit_mask_stats.json").read_text())
IJEPA = json.loads((GOLDEN / "ijepa_mask_stats.json").read_text())["configurations"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def close_mean(own, summary):
    """The rule that comes with the statistics: within four standard errors of both means."""
    own = torch.as_tensor(own, dtype=torch.float64)
    limit = 4 * math.sqrt(summary["se"] ** 2 + summary["sd"] ** 2 / len(own))
    assert abs(own.mean().item() - summary["mean"]) <= limit + 1e-9


def close_map(own, expected, draws, factor=1.0):
    """Within five standard errors at every place, for both numbers of draws."""
    own, expected = own.double(), torch.tensor(expected, dtype=torch.float64)
    limit = 5 * (expected * (1 - expected) * (1 / draws + 1 / draws)).sqrt()
    assert ((own - expected).abs() <= factor * limit + 1e-4).all()


def neighbours(masks):
    """Masked neighbours of a masked patch, on average, for each mask."""
    m = masks.float()
    pairs = (m[:, 1:] * m[:, :-1]).sum((1, 2)) + (m[:, :, 1:] * m[:, :, :-1]).sum((1, 2))
    return 2 * pairs / m.sum((1, 2))


def test_blockwise_masks_have_beits_statistics():
    expected, n = BEIT["statistics"], 20_000
    masks = BatchBlockwiseMask().draw(n, (14, 14), generator())["mask"]
    counts = masks.sum((1, 2))
    close_mean(counts, expected["masked_count"])
    close_mean(neighbours(masks), expected["masked_4_neighbours_of_a_masked_patch"])
    close_map(masks.float().mean(0), expected["position_probability"]["map"], n)
    histogram = expected["masked_count_histogram"]
    own = [(counts == value).double().mean().item() for value in histogram["values"]]
    distance = sum(abs(a - b) for a, b in zip(own, histogram["fractions"], strict=True)) / 2
    assert distance <= math.sqrt(2 * len(own) / math.pi * (2 / n))
    assert int(counts.max()) == 75


def test_first_blocks_have_beits_shapes():
    expected = BEIT["statistics"]["first_block"]
    mask = BatchBlockwiseMask()
    n = 20_000
    empty = torch.zeros(n, 14, 14, dtype=torch.bool)
    blocks, found = mask._block(empty, torch.full((n,), 75), generator(1))
    assert found.all()
    height, width = blocks.any(2).sum(1), blocks.any(1).sum(1)
    close_mean(height, expected["height"])
    close_mean(width, expected["width"])
    close_mean(height * width, expected["area"])
    close_mean((height / width).log(), expected["log_aspect_h_over_w"])
    close_mean(blocks.any(2).int().argmax(1), expected["top"])
    close_mean(blocks.any(1).int().argmax(1), expected["left"])


def test_rectangles_paint_the_official_example():
    with np.load(GOLDEN / "beit_mask_example.npz") as arrays:
        masks, blocks = torch.from_numpy(arrays["masks"]), torch.from_numpy(arrays["blocks"])
    number, height, width, top, left, _ = blocks.long().T
    painted = rectangles(top, left, height, width, (14, 14))
    for i, mask in enumerate(masks.bool()):
        assert torch.equal(painted[number == i].any(0), mask)


def test_a_largest_block_and_no_mask_at_all():
    masks = BatchBlockwiseMask(num_masked=40, min_block=4, max_block=6).draw(
        200, (14, 14), generator()
    )["mask"]
    assert int(masks.sum((1, 2)).max()) <= 40
    assert not BatchBlockwiseMask(num_masked=0).draw(3, (14, 14), generator())["mask"].any()


def test_random_masks_split_the_officials_noise():
    with np.load(GOLDEN / "mae_random_masking.npz") as arrays:
        golden = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    for ratio in (0.75, 0.9):  # at 0.6 the official count is one less than rounded
        visible, masked, restore, keep = split_by_noise(golden["noise"], ratio)
        suffix = round(100 * ratio)
        official = golden[f"ids_keep_{suffix}"].long()
        assert torch.equal(visible[:, : official.shape[1]], official)
        assert torch.equal(restore, golden[f"ids_restore_{suffix}"].long())
        assert visible.shape[1] == keep
        assert torch.equal(torch.cat([visible, masked], 1).gather(1, restore), all_places(4, 196))


def all_places(n, patches):
    return torch.arange(patches).expand(n, -1)


def test_counts_are_rounded_where_the_official_code_truncates():
    for row in json.loads((GOLDEN / "mae_len_keep.json").read_text())["rows"]:
        own = num_kept(row["L"], row["ratio"])
        assert own >= 1
        assert 0 <= own - row["kept"] <= 1
    assert num_kept(196, 0.75) == 49


def test_every_image_has_its_own_random_mask():
    out = BatchRandomMask(8, 0.75)({"image": torch.zeros(300, 3, 32, 32)})
    assert out["mask_visible"].shape == (300, 4)
    assert out["len_keep"] == 4
    share = torch.zeros(300, 16).scatter_(1, out["mask_visible"], 1.0).mean(0)
    assert ((share - 0.25).abs() < 5 * math.sqrt(0.25 * 0.75 / 300)).all()


@pytest.mark.parametrize("name", ["vit_h14", "vit_b16"])
def test_block_sizes_are_the_officials(name):
    p = IJEPA[name]["parameters"]
    with np.load(GOLDEN / "ijepa_block_sizes.npz") as arrays:
        u = arrays[f"{name}_u"]
        target, context = arrays[f"{name}_target_hw"], arrays[f"{name}_context_hw"]
    grid = tuple(IJEPA[name]["grid"])
    for i in range(len(u)):
        own = block_size(grid, u[i, 0], p["pred_mask_scale"], p["aspect_ratio"])
        assert own == tuple(target[i])
        assert block_size(grid, u[i, 1], p["enc_mask_scale"], (1.0, 1.0)) == tuple(context[i])


@pytest.mark.parametrize("name", ["vit_h14", "vit_b16"])
def test_multi_block_masks_have_ijepas_statistics(name):
    expected, grid = IJEPA[name], tuple(IJEPA[name]["grid"])
    batches, n = expected["batches"], expected["batch_size"]
    mask, g = BatchMultiBlockMask(expected["parameters"]["patch_size"]), generator()
    lengths, sides, tops, lefts, unions = [], [], [], [], []
    target_map = torch.zeros(grid)
    for _ in range(batches):
        drawn = mask.draw(n, grid, g)
        targets = torch.stack(drawn["masks_target"], 1)  # (n, 4, L)
        grids = torch.zeros(n, 4, grid[0] * grid[1]).scatter_(2, targets, 1.0).view(n, 4, *grid)
        context = torch.zeros(n, grid[0] * grid[1]).scatter_(1, drawn["mask_context"], 1.0)
        assert not (context.view(n, *grid) * grids.amax(1)).any()
        lengths.append((drawn["mask_context"].shape[1], targets.shape[2]))
        rows, columns = grids.amax(3), grids.amax(2)
        sides.append((rows[0, 0].sum().item(), columns[0, 0].sum().item()))
        tops.append(rows.argmax(2).double().mean().item())
        lefts.append(columns.argmax(2).double().mean().item())
        unions.append(grids.amax(1).mean().item())
        target_map += grids.amax(1).mean(0) / batches  # of any target
    for own, key in (
        ([a for a, _ in lengths], "context_length"),
        ([b for _, b in lengths], "target_length"),
        ([a for a, _ in sides], "target_height"),
        ([b for _, b in sides], "target_width"),
        (tops, "target_top"),
        (lefts, "target_left"),
        (unions, "union_of_targets_as_share_of_grid"),
    ):
        close_mean(own, expected[key])
    close_map(target_map, expected["position_probability_target"], batches * n, factor=2)


def test_lists_are_cut_to_the_shortest_in_raster_order():
    masks = torch.tensor([[[1, 0], [1, 1]], [[0, 1], [1, 0]]], dtype=torch.bool)
    assert indices(masks).tolist() == [[0, 2], [1, 2]]


def test_a_context_that_cannot_be_kept_is_named():
    crowded = BatchMultiBlockMask(4, target_scale=(0.8, 0.9), min_keep=10)
    with pytest.raises(ValueError, match="does not keep more than `min_keep` = 10 beside 4"):
        crowded({"image": torch.zeros(2, 3, 24, 24)})


def test_the_context_keeps_enough_on_a_small_grid():
    small = BatchMultiBlockMask(4, min_keep=10)
    for seed in range(20):
        drawn = small.draw(8, (6, 6), generator(seed))
        assert drawn["mask_context"].shape[1] > 10


def test_masks_follow_the_key():
    x = {"image": torch.zeros(2, 3, 64, 64)}
    for mask in (BatchRandomMask(8), BatchBlockwiseMask(8, 20, 4), BatchMultiBlockMask(8)):
        results = []
        for key in (0, 0, 1):
            with drawing("masks", key):
                results.append(mask(x))
        name = next(k for k in results[0] if k.startswith("mask"))
        assert torch.equal(results[0][name], results[1][name])
        a, b = results[0][name], results[2][name]
        assert a.shape != b.shape or not torch.equal(a, b)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BatchRandomMask(0), "`patch_size` must be >= 1, got 0"),
        (lambda: BatchRandomMask(mask_ratio=1.0), r"`mask_ratio` must be in \[0, 1\), got 1.0"),
        (lambda: BatchBlockwiseMask(min_block=0), "`num_masked` must be >= 0 and 1 <= `min_b"),
        (lambda: BatchBlockwiseMask(aspect_ratio=(2, 1)), "`aspect_ratio` must be a range"),
        (lambda: BatchMultiBlockMask(target_scale=(0, 1)), "`target_scale` must be a range"),
        (lambda: BatchMultiBlockMask(num_targets=0), "`num_targets` must be >= 1"),
        (
            lambda: BatchRandomMask(16)({"image": torch.zeros(1, 3, 40, 32)}),
            r"Images of \(40, 32\) pixels cannot be cut into patches of 16",
        ),
    ],
)
def test_wrong_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_more_blocks_than_patches_are_refused():
    with pytest.raises(ValueError, match="`num_masked` = 75 is more than the 6 x 6 patches"):
        BatchBlockwiseMask()({"image": torch.zeros(2, 3, 96, 96)})
