"""The README's table is the one of the code, and what it names exists."""

from pathlib import Path

import pytest
import spt_losses
from spt_losses import _table
from torch import nn

PACKAGE = Path(__file__).parent.parent


def test_the_readme_holds_the_table():
    text = (PACKAGE / "README.md").read_text(encoding="utf-8")
    shown = text.split(_table.BEGIN)[1].split(_table.END)[0].strip()
    assert shown == _table.table(), "run `python -m spt_losses._table README.md`"


def test_each_row_has_a_test_a_source_and_a_case(cases):
    names = {case.name for case in cases.CASES}
    for row in _table.rows():
        assert (PACKAGE / "tests" / row.test.strip("`")).is_file(), row
        assert "arxiv.org" in row.paper
        module = row.test.strip("`").removeprefix("test_").removesuffix(".py")
        if module == "sinkhorn":  # codes, which have no gradient: cases of SwAV and DINO use them
            assert {"swav", "dino_sinkhorn"} <= names
        else:
            assert any(name.startswith(module) for name in names), f"no case for {module}"


def test_every_loss_has_a_row():
    shown = " ".join(row.names for row in _table.rows())
    for name, thing in vars(spt_losses).items():
        is_loss = isinstance(thing, type) and issubclass(thing, nn.Module) and "Loss" in name
        if is_loss or name.endswith("_loss"):
            assert f"`{name}`" in shown, name


def test_a_source_without_a_link_is_refused():
    with pytest.raises(ValueError, match="No arXiv link"):
        _table._source("A loss without a paper.")
