"""The README's table of callbacks, read off the code.

``python -m spt_callbacks._table README.md`` writes it between its two markers.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import lightning as pl

BEGIN, END = "<!-- callbacks: begin -->", "<!-- callbacks: end -->"


def rows() -> list[tuple[str, str, str]]:
    """Room, name and first sentence of every public callback."""
    import spt_callbacks

    kinds = [
        kind
        for kind in vars(spt_callbacks).values()
        if isinstance(kind, type) and issubclass(kind, pl.Callback)
    ]
    found = [(_room(kind), kind.__name__, _first_line(kind)) for kind in kinds]
    return sorted(found, key=lambda row: (row[0], row[1].lower()))


def _room(kind: type) -> str:
    parts = kind.__module__.split(".")
    return parts[1] if len(parts) > 2 else "evaluation"


def _first_line(kind: type) -> str:
    return inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].replace("\n", " ")


def table() -> str:
    """The table in Markdown."""
    lines = ["| room | callback | what it does |", "|---|---|---|"]
    lines += [f"| {room} | `{name}` | {text} |" for room, name, text in rows()]
    return "\n".join(lines)


def write_into(path: Path) -> None:
    """Put the table between the markers of a file."""
    before, rest = path.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    path.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    write_into(Path(sys.argv[1]))
