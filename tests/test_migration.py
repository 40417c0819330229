"""The migration page: every name that it promises is there, and no name of lightly's is forgotten."""

import importlib
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "migration.md").read_text()
OURS = r"(?:spt|spt_\w+|torch|timm|lightning)(?:\.\w+)+"


def resolve(path):
    """The object of a dotted path: attributes first, then submodules."""
    parts = path.split(".")
    parts[0] = {"spt": "stable_pretraining"}.get(parts[0], parts[0])
    found = importlib.import_module(parts[0])
    for i, part in enumerate(parts[1:], start=2):
        if not hasattr(found, part):
            importlib.import_module(".".join(parts[:i]))
        found = getattr(found, part)
    return found


def section(title):
    """The text below a heading."""
    return PAGE.split(f"## {title}\n")[1].split("\n## ")[0]


def rows(text):
    """First and second cells of the tables in a text."""
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [(row[0], row[1]) for row in cells]


def same_names():
    table = section("Name by name, from 0.1.x").split("Moved, renamed")[0]
    for room, names in rows(table):
        for name in re.findall(r"`(\w+)`", names):
            if room != "room":
                yield f"{room.strip('`')}.{name}"


@pytest.mark.parametrize("path", list(same_names()))
def test_a_name_of_old_is_where_it_was(path):
    assert resolve(path) is not None


def replacements():
    for _, here in rows(section("Name by name, from 0.1.x")) + rows(section("From lightly")):
        for code in re.findall(r"`([^`]+)`", here):
            if match := re.match(OURS, code):
                yield match.group()


def test_what_stands_in_for_a_name_is_there():
    found = sorted(set(replacements()))
    assert len(found) > 60
    for path in found:
        assert resolve(path) is not None


def test_what_lightly_has_is_called_by_its_name():
    named = set(re.findall(r"`(lightly(?:\.\w+)+)", section("From lightly")))
    assert len(named) > 70
    for path in named:
        assert resolve(path) is not None


def test_no_loss_of_lightly_is_forgotten():
    import lightly.loss

    classes = {name for name, value in vars(lightly.loss).items() if isinstance(value, type)}
    named = set(re.findall(r"lightly\.loss\.(\w+)", section("From lightly")))
    assert classes == named
