"""Masks against the statistics of the official generators."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from spt_methods.masking import (
    BlockMasking,
    IJEPAMasking,
    PatchMasking,
    RatioBlockMasking,
    UnitMasking,
)
from spt_methods.masking.multiblock import block_size

GOLDEN = Path(__file__).parent / "golden"
GRID = (14, 14)


def statistics(name):
    return json.loads((GOLDEN / f"{name}_mask_stats.json").read_text())


def agree(values, summary):
    """The manifest's rule for a mean: within four standard errors of both samples."""
    values = torch.as_tensor(values, dtype=torch.float64)
    limit = 4 * math.sqrt(summary["se"] ** 2 + summary["sd"] ** 2 / len(values))
    difference = abs(values.mean().item() - summary["mean"])
    assert difference <= limit + 1e-9, (values.mean().item(), summary["mean"], limit)


def histograms_agree(values, histogram, n):
    values, known = torch.as_tensor(values), histogram["values"]
    shares = {v: (values == v).double().mean().item() for v in {*known, *values.tolist()}}
    expected = dict(zip(known, histogram["fractions"], strict=True))
    distance = sum(abs(shares[v] - expected.get(v, 0.0)) for v in shares) / 2
    assert distance <= math.sqrt(2 * len(known) / math.pi * (1 / n + 1 / len(values)))


def maps_agree(masks, expected, draws, factor=1.0):
    """Every place within five standard errors."""
    expected = torch.tensor(expected, dtype=torch.float64).flatten()
    found = masks.double().mean(0).flatten()
    pooled = (found * len(masks) + expected * draws) / (len(masks) + draws)
    limit = 5 * factor * (pooled * (1 - pooled) * (1 / len(masks) + 1 / draws)).sqrt() + 5e-5
    assert ((found - expected).abs() <= limit).all()


def neighbours(masks):
    """Mean number of hidden neighbours of a hidden patch, per mask."""
    m = torch.nn.functional.pad(masks.view(-1, *GRID).double(), (1, 1, 1, 1))
    total = m[:, :-2, 1:-1] + m[:, 2:, 1:-1] + m[:, 1:-1, :-2] + m[:, 1:-1, 2:]
    inner = m[:, 1:-1, 1:-1]
    return (total * inner).sum((1, 2)) / inner.sum((1, 2))


def check_blocks(masks, expected):
    agree(masks.sum(1), expected["masked_count"])
    histogram = expected.get("masked_count_histogram")
    if histogram is not None:
        histograms_agree(masks.sum(1), histogram, expected["draws"])
    agree(neighbours(masks), expected["masked_4_neighbours_of_a_masked_patch"])
    maps_agree(masks, expected["position_probability"]["map"], expected["draws"])


@pytest.mark.parametrize(
    ("name", "masking"),
    [
        ("beit", BlockMasking(75 / 196)),
        ("beit2", BlockMasking(75 / 196, complete=True)),
        ("data2vec", BlockMasking(120 / 196)),
        ("maskfeat", BlockMasking(0.4, min_patches=None)),
    ],
)
def test_block_masks_are_those_of_the_official_generators(name, masking):
    check_blocks(masking(6000, GRID), statistics(name)["statistics"])


def test_the_masks_of_ibot():
    expected = statistics("ibot")["statistics"]["global_crop"]
    masks = RatioBlockMasking((0.1, 0.5), 0.5, "independent")(6000, GRID)
    hidden = masks[masks.any(1)]
    assert abs(len(hidden) / 6000 - 0.5) < 4 * math.sqrt(0.25 / 6000)
    agree(hidden.sum(1) / 196, expected["realised_ratio_when_not_zero"])
    check_blocks(hidden, expected["masked_draws_only"])


@pytest.mark.parametrize(("name", "rule"), [("dinov2", "strata"), ("dinov3", "edges")])
def test_the_masks_of_dinov2_and_v3(name, rule):
    expected = statistics(name)
    masking = RatioBlockMasking((0.1, 0.5), 0.5, rule)
    batches = torch.stack([masking(32, GRID) for _ in range(150)])
    assert (batches.any(2).sum(1) == expected["masked_crops_per_batch"]["value"]).all()
    hidden = batches.flatten(0, 1)
    hidden = hidden[hidden.any(1)]
    check_blocks(hidden, expected["masked_crops_only"])
    counts = batches.sum(2).sort(1).values[:, 16:].double()  # one per stratum, smallest first
    largest = torch.tensor(expected["requested_max_by_stratum"])
    assert (counts <= largest).all()
    if rule == "edges":
        assert (counts == largest).all()


def test_unit_masks_hide_exact_numbers_of_whole_units():
    for row in statistics("simmim")["configurations"]:
        settings = row["parameters"]
        unit = settings["mask_patch_size"] // settings["model_patch_size"]
        grid = tuple(row["grid_of_tokens"])
        masks = UnitMasking(settings["mask_ratio"], unit)(2000, grid)
        assert (masks.sum(1) == row["masked_tokens_exact"]).all()
        units = masks.view(-1, grid[0] // unit, unit, grid[1] // unit, unit)
        assert (units == units[:, :, :1, :, :1]).all()
        probability = row["unit_probability_expected"]
        error = math.sqrt(probability * (1 - probability) / 2000)
        assert (units[:, :, 0, :, 0].double().mean(0) - probability).abs().max() < 4.5 * error
    with pytest.raises(ValueError, match=r"`unit_size` 2 must divide the grid of patches, got \(7"):
        UnitMasking()(1, (7, 7))


def test_block_sizes_of_ijepa():
    with np.load(GOLDEN / "ijepa_block_sizes.npz") as file:
        arrays = {k: file[k] for k in file.files}
    for name, grid in (("vit_h14", (16, 16)), ("vit_b16", (14, 14))):
        for u, target, context in zip(
            arrays[f"{name}_u"],
            arrays[f"{name}_target_hw"],
            arrays[f"{name}_context_hw"],
            strict=True,
        ):
            assert block_size(grid, u[0], (0.15, 0.2), (0.75, 1.5)) == tuple(target)
            assert block_size(grid, u[1], (0.85, 1.0), (1.0, 1.0)) == tuple(context)


@pytest.mark.parametrize("name", ["vit_h14", "vit_b16"])
def test_the_blocks_of_ijepa(name):
    expected = statistics("ijepa")["configurations"][name]
    grid = tuple(expected["grid"])
    masking = IJEPAMasking()
    drawn = [masking(16, grid) for _ in range(300)]
    agree([out.context_idx.shape[1] for out in drawn], expected["context_length"])
    agree([out.target_idx.shape[2] for out in drawn], expected["target_length"])
    lengths = [out.target_idx.shape[2] for out in drawn]
    histograms_agree(lengths, expected["target_length_histogram"], expected["batches"])
    targets = torch.stack([out.target_block_masks for out in drawn])  # (300, 4, 16, N)
    union = targets.any(1).double().mean((1, 2))
    agree(union, expected["union_of_targets_as_share_of_grid"])
    pairs = [(a, b) for a in range(4) for b in range(a)]
    overlap = torch.stack([(targets[:, a] & targets[:, b]).any(2) for a, b in pairs])
    agree(overlap.double().mean((0, 2)), expected["probability_two_targets_of_an_image_overlap"])
    maps_agree(
        targets.any(1).flatten(0, 1), expected["position_probability_target"],
        expected["batches"] * 16, factor=2.0,
    )  # fmt: skip
    for out in drawn[:50]:
        inside = torch.zeros(16, grid[0] * grid[1]).scatter_(1, out.context_idx, 1.0)
        assert not (inside.bool() & out.target_block_masks.any(0)).any()
        torch.testing.assert_close(inside, 1 - out.mask)
        assert (out.context_idx.diff(dim=1) > 0).all()
        gathered = out.target_block_masks.gather(2, out.target_idx)
        assert gathered.all()
        assert out.target_block_masks.sum(2).unique().tolist() == [out.target_idx.shape[2]]
    assert expected["last_row_target_probability"] == 0.0
    assert not targets.view(-1, *grid)[:, -1].any()


def test_a_small_grid_drops_targets_from_the_context_rather_than_loop():
    out = IJEPAMasking(min_keep=100)(3, (4, 4))
    assert out.context_idx.shape[1] > 0


@pytest.mark.parametrize(
    "masking", [BlockMasking(), RatioBlockMasking(), UnitMasking(), IJEPAMasking()]
)
def test_draws_are_keyed_by_seed_and_number_and_travel_in_the_state(masking):
    def flat(out):
        return out if isinstance(out, torch.Tensor) else out.target_block_masks

    state = torch.get_rng_state()
    kind = type(masking)
    first, second = kind(), kind()
    a, b = flat(first(4, GRID)), flat(first(4, GRID))
    assert a.shape != b.shape or not torch.equal(a, b)
    assert torch.equal(flat(second(4, GRID)), a)
    third = kind()
    third.load_state_dict(second.state_dict())
    assert torch.equal(flat(third(4, GRID)), b)
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is left alone


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BlockMasking(1.0), r"`mask_ratio` must be in \(0, 1\), got 1.0"),
        (lambda: RatioBlockMasking((0.5, 0.1)), "`ratio` must be 0 <= low <= high < 1"),
        (lambda: RatioBlockMasking(probability=2), r"`probability` must be in \[0, 1\], got 2"),
        (lambda: RatioBlockMasking(rule="any"), "`rule` must be 'independent'.*got 'any'"),
        (lambda: UnitMasking(0.0), r"`mask_ratio` must be in \(0, 1\), got 0.0"),
        (lambda: UnitMasking(unit_size=0), "`unit_size` must be >= 1, got 0"),
        (lambda: IJEPAMasking(0), "`num_targets` must be >= 1, got 0"),
        (lambda: IJEPAMasking(target_scale=(0.3, 0.2)), "`target_scale` must be 0 < low"),
        (lambda: IJEPAMasking()(1, (1, 4)), r"at least 2 x 2 patches, got \(1, 4\)"),
        (lambda: PatchMasking(1.0), r"`mask_ratio` must be in \[0, 1\), got 1.0"),
    ],
)
def test_what_masks_refuse(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_random_masking_keeps_as_many_as_the_official_code():
    rows = json.loads((GOLDEN / "mae_len_keep.json").read_text())["rows"]
    assert len(rows) > 20
    for row in rows:
        masking = PatchMasking(row["ratio"]).train()
        x = torch.zeros(1, row["L"], 1)
        if row["kept"] == 0:  # where the official code goes on with no token at all
            with pytest.raises(ValueError, match=rf"hides all {row['L']} patches"):
                masking(x, 1, row["L"])
            continue
        out = masking(x, 1, row["L"])
        assert out.ids_keep.shape == (1, row["kept"])
        assert out.mask.sum() == row["masked"]
