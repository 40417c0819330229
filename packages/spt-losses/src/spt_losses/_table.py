"""The README's table of losses, read off the docstrings.

``python -m spt_losses._table README.md`` writes it between its two markers.
"""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType

from torch import nn

BEGIN, END = "<!-- losses: begin -->", "<!-- losses: end -->"


@dataclass(frozen=True)
class Row:
    """One loss as the table shows it."""

    names: str
    paper: str
    equation: str
    ranks: str
    test: str


def _source(module_doc: str) -> tuple[str, str]:
    """Paper with its link, and the equation, as the docstring of a file names them."""
    text = " ".join(module_doc.split())
    found = re.search(r"https://arxiv\.org/abs/([\d.]+\d)", text)
    if not found:
        raise ValueError(f"No arXiv link in the docstring that begins {text[:60]!r}.")
    before = text[: found.start()].rstrip(". ")
    equation = re.search(
        r"((?:eq\.|section|figure|Algorithm|Definition|appendix) [\w.]+.*)$", before
    )
    return f"[{found[1]}]({found[0]})", equation[1] if equation else "as in its code"


def _ranks(doc: str) -> str:
    """The words under ``Ranks:`` of a docstring."""
    found = re.search(r"Ranks:\n((?:[ ]{4,}.+\n?)+)", inspect.cleandoc(doc))
    return " ".join(found[1].split()) if found else ""


def rows() -> list[Row]:
    """One row for each file of losses: its functions and classes, source and behaviour."""
    import spt_losses

    files: dict[str, list[FunctionType | type]] = {}
    for name in sorted(vars(spt_losses), key=str.lower):
        thing = getattr(spt_losses, name)
        if isinstance(thing, FunctionType) or (
            isinstance(thing, type) and issubclass(thing, nn.Module)
        ):
            files.setdefault(thing.__module__, []).append(thing)
    return [
        _row(module, things)
        for module, things in sorted(files.items())
        if any(_ranks(thing.__doc__ or "") for thing in things)
    ]


def _row(module: str, things: list[FunctionType | type]) -> Row:
    paper, equation = _source(sys.modules[module].__doc__ or "")
    things = sorted(things, key=lambda thing: isinstance(thing, FunctionType))
    ranks = [_ranks(thing.__doc__ or "") for thing in things]
    return Row(
        names=", ".join(f"`{thing.__name__}`" for thing in things),
        paper=paper,
        equation=equation,
        ranks="; ".join(dict.fromkeys(text for text in ranks if text)),
        test=f"`test_{module.rpartition('.')[2]}.py`",
    )


def table() -> str:
    """The table in Markdown."""
    lines = ["| loss | paper | equation | ranks | test |", "|---|---|---|---|---|"]
    lines += [f"| {r.names} | {r.paper} | {r.equation} | {r.ranks} | {r.test} |" for r in rows()]
    return "\n".join(lines)


def write_into(path: Path) -> None:
    """Put the table between the markers of a file."""
    before, rest = path.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    path.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    write_into(Path(sys.argv[1]))
