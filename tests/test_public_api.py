"""The public names and their signatures are those that are written down, and each is documented."""

from __future__ import annotations

import importlib
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def tool() -> dict:
    """The names of the tool that lists the API."""
    return runpy.run_path(str(ROOT / "tools" / "public_api.py"))


def test_a_change_of_the_api_is_a_line_in_the_diff(tool):
    found = list(tool["lines"]())
    written = (ROOT / "tests" / "public_api.txt").read_text(encoding="utf-8").splitlines()
    names = [line.split("(")[0].split(":")[0] for line in found]
    assert len(names) == len(set(names)) > 300
    assert names == [line.split("(")[0].split(":")[0] for line in written], (
        "run `python tools/public_api.py > tests/public_api.txt` and look at the diff"
    )
    if sys.version_info[:2] == (3, 11):  # how a default is shown differs between versions
        assert found == written


def test_each_public_name_has_a_docstring_of_its_own(tool):
    for room in tool["ROOMS"]:
        module = importlib.import_module(room)
        assert module.__doc__, room
        for name in tool["public_names"](module):
            value = getattr(module, name)
            if callable(value):
                written = value.__doc__ or ""
                assert len(written) > 5, f"{room}.{name} says nothing"
                assert not written.startswith(f"{name}("), f"{room}.{name}: written by dataclass"
