"""Masks against the official code: exact where the draws are given, else in distribution."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from spt_data import MultiBlockCollator, apply_masks, transforms
from spt_data.masking import blockwise_mask, num_kept
from spt_data.masks.multiblock import block_size
from spt_data.masks.random import split_order, unit_mask

GOLDEN = Path(__file__).parent / "golden"


def facts(name):
    return json.loads((GOLDEN / name).read_text())


def assert_same_mean(own, summary):
    """The rule of the stored statistics: four standard errors of the difference."""
    own = torch.as_tensor(own, dtype=torch.float64)
    error = (summary["se"] ** 2 + summary["sd"] ** 2 / len(own)) ** 0.5
    assert abs(float(own.mean()) - summary["mean"]) <= 4 * error + 1e-9


def assert_same_histogram(own, histogram, n):
    """Total variation within its expectation for equal laws."""
    own = torch.as_tensor(own)
    values, fractions = histogram["values"], torch.tensor(histogram["fractions"])
    mine = torch.tensor([float((own == value).float().mean()) for value in values])
    distance = 0.5 * ((mine - fractions).abs().sum() + (1 - mine.sum()))
    assert distance <= (2 * len(values) / torch.pi * (1 / n + 1 / len(own))) ** 0.5


def assert_same_map(own, stored, draws, factor=1):
    """Probability of each patch, within five standard errors."""
    stored = torch.tensor(stored)
    error = (stored * (1 - stored) * (1 / draws + 1 / len(own))).sqrt()
    assert ((own.float().mean(0) - stored).abs() <= factor * 5 * error + 1e-4).all()


def neighbours(mask):
    """Mean number of masked patches beside a masked one."""
    padded = torch.nn.functional.pad(mask.float(), (1, 1, 1, 1))
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    return float(around[mask].mean())


def compare_block_masks(masks, statistics):
    counts = masks.flatten(1).sum(1)
    assert_same_mean(counts, statistics["masked_count"])
    assert_same_map(masks, statistics["position_probability"]["map"], statistics["draws"])
    around = [neighbours(mask) for mask in masks]
    assert_same_mean(around, statistics["masked_4_neighbours_of_a_masked_patch"])
    return counts


def test_a_mae_mask_follows_from_its_noise():
    stored = np.load(GOLDEN / "mae_random_masking.npz")
    for ratio in (60, 75, 90):
        for row, noise in enumerate(torch.from_numpy(stored["noise"])):
            kept, masked, restore, _ = split_order(noise.argsort(), ratio / 100)
            assert restore.tolist() == stored[f"ids_restore_{ratio}"][row].tolist()
            official = stored[f"ids_keep_{ratio}"][row].tolist()
            assert kept[: len(official)].tolist() == official  # they truncate the count
            assert len(kept) - len(official) in (0, 1)
            assert len(kept) + len(masked) == 196


def test_the_number_of_kept_patches_is_rounded_and_never_none():
    for row in facts("mae_len_keep.json")["rows"]:
        exact = row["L"] * (1 - row["ratio"])
        assert num_kept(row["L"], row["ratio"]) == max(1, round(exact))
        assert abs(num_kept(row["L"], row["ratio"]) - row["kept"]) <= 1
    assert (num_kept(10, 0.9), num_kept(100, 0.9)) == (1, 10)


def test_the_masks_of_beit():
    stored = facts("beit_mask_stats.json")
    with transforms.random_seed(0):
        masks = torch.stack([blockwise_mask(14, 14, 75) for _ in range(2000)])
    counts = compare_block_masks(masks, stored["statistics"])
    assert_same_histogram(counts, stored["statistics"]["masked_count_histogram"], 20000)
    assert counts.max() == 75


def test_the_masks_of_beit_v2_reach_their_count():
    with transforms.random_seed(0):
        masks = torch.stack([blockwise_mask(14, 14, 75, exact=True) for _ in range(1000)])
    compare_block_masks(masks, facts("beit2_mask_stats.json")["statistics"])
    assert (masks.flatten(1).sum(1) == 75).all()


@pytest.mark.parametrize(("crop", "side"), [("global_crop", 224), ("local_crop", 96)])
def test_the_masks_of_ibot(crop, side):
    stored = facts("ibot_mask_stats.json")["statistics"][crop]
    mask, image = transforms.RatioBlockwiseMask(), torch.zeros(3, side, side)
    with transforms.random_seed(1):
        masks = torch.stack([mask({"image": image})["mask"] for _ in range(2000)])
    empty = masks.flatten(1).sum(1) == 0
    share = stored["probability_no_patch_masked"]
    error = (share * (1 - share) * (1 / stored["draws"] + 1 / len(masks))) ** 0.5
    assert abs(float(empty.float().mean()) - share) < 4 * error
    compare_block_masks(masks[~empty], stored["masked_draws_only"])


def test_the_block_sizes_of_ijepa():
    stored = np.load(GOLDEN / "ijepa_block_sizes.npz")
    for name, grid in (("vit_h14", (16, 16)), ("vit_b16", (14, 14))):
        for i, (u_target, u_context) in enumerate(stored[f"{name}_u"]):
            target = block_size(grid, u_target, (0.15, 0.2), (0.75, 1.5))
            context = block_size(grid, u_context, (0.85, 1.0), (1.0, 1.0))
            assert target == tuple(stored[f"{name}_target_hw"][i])
            assert context == tuple(stored[f"{name}_context_hw"][i])


@pytest.mark.parametrize(("name", "patch_size"), [("vit_b16", 16), ("vit_h14", 14)])
def test_the_masks_of_ijepa(name, patch_size):
    stored = facts("ijepa_mask_stats.json")["configurations"][name]
    collator = MultiBlockCollator(patch_size)
    grid = (224 // patch_size,) * 2
    with transforms.random_seed(2):
        batches = [collator.draw(grid, 16) for _ in range(150)]
    assert_same_mean([context.shape[1] for context, _ in batches], stored["context_length"])
    lengths = [targets[0].shape[1] for _, targets in batches]
    assert_same_mean(lengths, stored["target_length"])
    assert_same_histogram(lengths, stored["target_length_histogram"], stored["batches"])
    covered = torch.zeros(150 * 16, grid[0] * grid[1])  # by any of the targets
    images = [[target[i] for target in targets] for _, targets in batches for i in range(16)]
    for row, places in zip(covered, images, strict=True):
        row[torch.cat(places)] = 1
    stored_map = stored["position_probability_target"]
    assert_same_map(covered.view(-1, *grid), stored_map, stored["batches"] * 16, factor=2)
    for context, targets in batches:
        for i in range(16):
            seen = set(context[i].tolist())
            assert not any(seen & set(target[i].tolist()) for target in targets)


def test_tokens_are_gathered_mask_by_mask_as_the_official_code_does():
    stored = {k: torch.from_numpy(v) for k, v in np.load(GOLDEN / "ijepa_targets_loss.npz").items()}
    tokens = torch.nn.functional.layer_norm(stored["h"].double(), (12,))
    gathered = apply_masks(tokens, *stored["masks_pred"].long())
    torch.testing.assert_close(gathered, stored["targets"], rtol=0, atol=1e-10)


def test_the_masks_of_simmim():
    stored = np.load(GOLDEN / "simmim_mask_example.npz")
    for i, case in enumerate(facts("simmim_mask_stats.json")["configurations"]):
        settings, units = case["parameters"], tuple(case["grid_of_units"])
        order = torch.from_numpy(stored[f"perm_{i}"]).long()
        scale = settings["mask_patch_size"] // settings["model_patch_size"]
        mask = unit_mask(order, units, scale, settings["mask_ratio"])
        assert torch.equal(mask, torch.from_numpy(stored[f"mask_{i}"]).bool())
        assert int(mask.sum()) == case["masked_tokens_exact"]
