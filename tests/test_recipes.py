"""One specification of the published recipes, for the processor and for the accelerator."""

from __future__ import annotations

import functools
import importlib.util

import pytest
import spt_augment
import spt_data
import torch
from spt_methods import methods
from spt_methods.catalogue import CATALOGUE

TABLE = "_recipe_table.py"


def test_both_packages_hold_the_same_table(root):
    """The two are siblings that may not import each other, so each has a copy."""
    data = root / "packages" / "spt-data" / "src" / "spt_data" / TABLE
    augment = root / "packages" / "spt-augment" / "src" / "spt_augment" / TABLE
    assert data.read_bytes() == augment.read_bytes(), f"copy {data} to {augment} or back"


def test_every_recipe_has_both_forms():
    assert set(spt_data.recipes.NAMES) == set(spt_augment.recipes.NAMES)
    for name in spt_data.recipes.NAMES:
        assert callable(getattr(spt_augment.recipes, name))
        assert callable(getattr(spt_data.recipes, name))


def views_of(batch):
    """Name or place of each view, and its shape, dtype and keys."""
    views = dict(enumerate(batch["views"])) if "views" in batch else batch
    if "image" in batch:
        views = {"image": batch}
    return {
        name: (tuple(view["image"].shape), view["image"].dtype, view["label"].shape)
        for name, view in views.items()
    }


@pytest.mark.parametrize("name", sorted(spt_data.recipes.NAMES))
def test_both_forms_give_the_same_views_and_masks(name):
    """From the same images; the draws differ, so numbers are compared in each package's tests."""
    size = 224 if name in ("beit", "ijepa") else 32
    options = {"size": size, "local_size": 16}
    if name == "deit":
        options["num_classes"] = 5
    images = torch.randint(0, 256, (3, 3, 48, 56), dtype=torch.uint8)
    preset = spt_data.recipes.preset(name, **options)
    ours = preset.collate([preset({"image": image, "label": i}) for i, image in enumerate(images)])
    theirs = spt_augment.recipes.preset(name, **options, compile=False)(
        {"image": images, "label": torch.arange(3)}
    )
    assert views_of(ours) == views_of(theirs)
    masks = {key for key in ours if "mask" in key.lower() and not key[0].isupper()}
    assert masks == {key for key in theirs if "mask" in key.lower() and not key[0].isupper()}
    for key in masks:
        assert type(ours[key]) is type(theirs[key])
        if name != "ijepa":  # whose lengths are drawn
            assert ours[key].shape == theirs[key].shape
            assert ours[key].dtype == theirs[key].dtype


AUGMENTED = [row for row in CATALOGUE if getattr(methods, row.method).paper.augmentation]


@pytest.fixture(scope="module")
def build(root):
    """Makes any method at the smallest size, as the tests of its package do."""
    path = root / "packages" / "spt-methods" / "tests" / "test_catalogue.py"
    spec = importlib.util.spec_from_file_location("spt_methods_small", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build


@functools.cache
def batches_of(name, size):
    """A batch of 4 in both forms of a recipe, from the same bytes."""
    options = {"size": size, "local_size": 32, **({"num_classes": 4} if name == "deit" else {})}
    images = torch.randint(0, 256, (4, 3, 80, 72), dtype=torch.uint8)
    whole = {"image": images, "label": torch.arange(4), "sample_idx": torch.arange(4)}
    rows = [{key: column[i] for key, column in whole.items()} for i in range(4)]
    preset = spt_data.recipes.preset(name, **options)
    ours = preset.collate([preset(row) for row in rows])
    return ours, spt_augment.recipes.preset(name, **options, compile=False)(whole)


@pytest.mark.parametrize("row", AUGMENTED, ids=lambda row: row.method)
def test_a_methods_augmentation_feeds_it(row, build):
    """From bytes to a loss whose gradient reaches the encoder."""
    name = getattr(methods, row.method).paper.augmentation
    size = 224 if name in ("beit", "ijepa") else 64  # whose masks need many patches
    for batch in batches_of(name, size):
        module = build(row.method, **({"image_size": size} if size == 224 else {})).train()
        state = module(batch, "fit")
        state["loss"].backward()
        encoder = getattr(module.backbone, "student", module.backbone)
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
        assert len(state["embedding"]) == len(state["label"])
