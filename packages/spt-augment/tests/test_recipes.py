"""Every published recipe runs, with the views and masks of its table."""

import pytest
import torch
from spt_augment import GPUColorJitter, recipes
from spt_augment._recipe_table import RECIPES
from spt_augment.recipes import NAMES, preset, steps_of


def batch(n=2, side=64):
    g = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=g)
    return {"image": image, "label": torch.arange(n)}


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_gives_its_views(name):
    recipe = RECIPES[name].resized(32, 16)
    side = 128 if name == "ijepa" else 32  # fewer patches would leave no context
    recipe = recipe.resized(side)
    classes = {"num_classes": 5} if recipe.mix else {}
    out = preset(name, size=side, local_size=16, **classes)(batch())
    if len(recipe.views) == 1:
        views = [out]
    elif recipe.named:
        views = [out[view.name] for view in recipe.views]
        assert "image" not in out
        assert "views" not in out
    else:
        views = out["views"]
    assert [view["image"].shape[-1] for view in views] == [view.size for view in recipe.views]
    for view, spec in zip(views, recipe.views, strict=True):
        assert view["image"].is_floating_point()
        assert len(view["label"]) == 2
        assert ("GPUColorJitter" in view) == (spec.jitter is not None)
        assert ("GPURandomSolarize" in view) == (spec.solarize_p > 0)
    assert not recipe.mix or views[0]["label"].shape == (2, 5)
    images = [view["image"] for view in views]
    assert all(not torch.equal(a, b) for i, a in enumerate(images) for b in images[:i])


def test_the_steps_hold_the_numbers_of_the_table():
    for recipe in RECIPES.values():
        for spec in recipe.views:
            steps = {type(step).__name__: step for step in steps_of(spec)}
            crop = steps["GPURandomResizedCrop"]
            assert (crop.size, crop.scale) == ((spec.size,) * 2, spec.crop_scale)
            assert crop.interpolation == spec.interpolation
            assert getattr(steps.get("GPURandomHorizontalFlip"), "p", 0) == spec.flip_p
            assert getattr(steps.get("GPURandomGrayscale"), "p", 0) == spec.grayscale_p
            assert getattr(steps.get("GPUGaussianBlur"), "p", 0) == spec.blur_p
            assert getattr(steps.get("GPURandomSolarize"), "p", 0) == spec.solarize_p
            assert getattr(steps.get("GPURandomErasing"), "p", 0) == spec.erasing_p
            assert (steps["GPUNormalize"].mean, steps["GPUNormalize"].std) == (spec.mean, spec.std)
            if spec.jitter is not None:
                jitter = steps["GPUColorJitter"]
                assert jitter.p == spec.jitter_p
                assert jitter.ranges == GPUColorJitter(*spec.jitter).ranges


def test_masks_come_with_their_recipes():
    mae, ijepa, beit = (preset(name, size=128)(batch()) for name in ("mae", "ijepa", "beit"))
    assert mae["mask_visible"].shape == (2, 16)
    assert len(ijepa["masks_target"]) == 4
    assert beit["mask"].shape == (2, 8, 8)


def test_labels_are_mixed_when_there_are_classes():
    assert recipes.deit(size=32, num_classes=7)(batch())["label"].shape == (2, 7)
    with pytest.raises(ValueError, match="'deit' mixes labels: `num_classes` is needed, got None"):
        recipes.deit(size=32)


def test_other_statistics_and_wrong_names():
    zero = {"image": torch.zeros(2, 3, 64, 64)}
    out = recipes.mae(size=64, mean=[0.5] * 3, std=[0.25] * 3)(zero)
    torch.testing.assert_close(out["image"], torch.full((2, 3, 64, 64), -2.0))
    with pytest.raises(ValueError, match="Unknown recipe 'simclar'; there are"):
        preset("simclar")


def test_labels_stay_with_their_view():
    for name in ("byol", "dino"):
        out = preset(name, size=32, local_size=16)(batch())
        views = out.get("views") or [out["global_1"], out["local_8"]]
        assert all(torch.equal(view["label"], torch.arange(2)) for view in views)


def test_ijepa_on_a_small_grid_says_what_does_not_fit():
    with pytest.raises(ValueError, match="does not keep more than `min_keep` = 10"):
        recipes.ijepa(size=32)(batch())


@pytest.mark.parametrize("size", [96, 144, 224])
def test_beits_blocks_keep_their_share_at_other_sizes(size):
    images = torch.randint(0, 256, (64, 3, size, size), dtype=torch.uint8)
    masks = recipes.beit(size=size, compile=False)({"image": images})["mask"]
    share = masks.float().mean().item()
    assert masks.shape[1:] == (size // 16, size // 16)
    assert 0.3 < share <= 75 / 196 + 0.01
