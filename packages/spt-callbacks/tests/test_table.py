"""The README's table is the one of the code."""

from pathlib import Path

from spt_callbacks import _table

README = Path(__file__).parent.parent / "README.md"


def test_the_readme_holds_the_table():
    text = README.read_text(encoding="utf-8")
    shown = text.split(_table.BEGIN)[1].split(_table.END)[0].strip()
    assert shown == _table.table(), "run `python -m spt_callbacks._table README.md`"


def test_every_callback_says_what_it_does():
    for _, name, text in _table.rows():
        assert text.endswith((".", "``.")), f"{name}: {text!r}"
        assert len(text) > 20, name
