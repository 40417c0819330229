"""One specification of the published recipes, for the processor and for the accelerator."""

from __future__ import annotations

import pytest
import spt_augment
import spt_data

TABLE = "_recipe_table.py"


def test_both_packages_hold_the_same_table(root):
    """The two are siblings that may not import each other, so each has a copy."""
    data = root / "packages" / "spt-data" / "src" / "spt_data" / TABLE
    augment = root / "packages" / "spt-augment" / "src" / "spt_augment" / TABLE
    assert data.read_bytes() == augment.read_bytes(), f"copy {data} to {augment} or back"


def test_every_recipe_has_both_forms():
    recipes = pytest.importorskip("spt_data.recipes")
    from spt_augment._recipe_table import RECIPES

    for name in RECIPES:
        assert callable(getattr(spt_augment.recipes, name))
        assert callable(getattr(recipes, name))
    assert spt_data.__name__ == "spt_data"
