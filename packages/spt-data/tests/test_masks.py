"""Patch masks of single images."""

import pytest
import torch
from PIL import Image
from spt_data import RandomMask, masks, transforms
from torch.utils.data import default_collate


@pytest.mark.parametrize("image", [torch.zeros(3, 224, 224), Image.new("L", (224, 224))])
def test_a_mae_mask_is_a_permutation(image):
    out = RandomMask()({"image": image, "label": 1})
    kept, masked = out["mask_visible"], out["mask_masked"]
    assert (len(kept), len(masked), out["len_keep"], out["label"]) == (49, 147, 49, 1)
    shuffled = torch.cat([kept, masked])
    assert torch.equal(shuffled[out["ids_restore"]], torch.arange(196))


def test_masks_collate_and_keep_at_least_one_patch():
    mask = RandomMask(patch_size=4, mask_ratio=0.9)
    batch = default_collate([mask({"image": torch.zeros(1, 8, 20)}) for _ in range(3)])
    assert batch["mask_visible"].shape == (3, 1)
    assert batch["ids_restore"].shape == (3, 10)


def test_every_patch_is_equally_likely():
    mask = RandomMask(patch_size=1, mask_ratio=0.75)
    image = torch.zeros(1, 4, 4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        counts = sum(
            torch.bincount(mask({"image": image})["mask_visible"], minlength=16)
            for _ in range(2000)
        )
    error = (counts / 2000 - 0.25).abs().max()
    assert error < 4 * (0.25 * 0.75 / 2000) ** 0.5


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"multiples of 16, got \(20, 32\)"):
        RandomMask()({"image": torch.zeros(3, 20, 32)})
    with pytest.raises(ValueError, match=r"`mask_ratio` must be in \[0, 1\), got 1"):
        RandomMask(mask_ratio=1)
    with pytest.raises(ValueError, match="`patch_size` must be positive, got 0"):
        RandomMask(patch_size=0)
    with pytest.raises(KeyError, match="RandomMask needs the key 'image'"):
        RandomMask()({"img": 1})


@pytest.mark.parametrize(
    "mask", [masks.BlockwiseMask(8, 4, 1), masks.RatioBlockwiseMask(8), masks.UnitMask(8, 8)]
)
def test_a_mask_that_is_left_out_masks_nothing(mask):
    sample = {"image": torch.rand(3, 32, 32), "flag": False}
    out = transforms.Conditional(mask, "flag")(sample)
    assert torch.equal(out["mask"], torch.zeros(4, 4, dtype=torch.bool))
    assert out["mask"].shape == mask(sample)["mask"].shape


def test_patches_that_are_not_masked_are_all_kept():
    sample = {"image": torch.rand(3, 32, 20), "flag": False}
    out = transforms.Conditional(masks.PatchMasking(8), "flag")(sample)
    assert torch.equal(out["image"], sample["image"])
    assert torch.equal(out["patch_mask"], torch.ones(4, 2, dtype=torch.bool))


@pytest.mark.parametrize("mask", [RandomMask(8), masks.ContextTargetsMultiBlockMask(8)])
def test_lists_of_patches_cannot_be_left_out(mask):
    name = type(mask).__name__
    with pytest.raises(ValueError, match=f"{name} cannot be left out for some samples"):
        transforms.Conditional(mask, "flag")({"image": torch.rand(3, 32, 32), "flag": False})


def test_targets_are_paths():
    image = {"image": torch.rand(3, 64, 64), "m": {}}
    out = RandomMask(8, target_visible="m.visible", target_len_keep="m.n")(image)
    assert len(out["m"]["visible"]) == out["m"]["n"] == 16
    blocks = masks.ContextTargetsMultiBlockMask(
        8, target_context="m.context", target_targets="m.targets"
    )
    assert set(blocks(image)["m"]) == {"context", "targets"}
    assert image["m"] == {}
