"""The table of methods: what each is made of, and what shows that it is right.

The tests walk it, the documentation and ``spt methods`` print it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Views = Literal["two views", "one image", "multi-crop"]


@dataclass(frozen=True)
class Row:
    """One method.

    Attributes:
        method: Name of its class in :mod:`spt_methods.methods`.
        forward: Name of its forward function in :mod:`spt_methods.forward`.
        views: What it reads in training.
        losses: Names in ``spt_losses``.
        callbacks: Names of the callbacks that it brings.
        paper: Number on arXiv.
        parity: The test that holds it against its source.
    """

    method: str
    forward: str
    views: Views
    losses: tuple[str, ...]
    paper: str
    parity: str
    callbacks: tuple[str, ...] = ()


CATALOGUE: tuple[Row, ...] = (
    Row("BarlowTwins", "barlow_twins", "two views", ("BarlowTwinsLoss",), "2103.03230", "test_two_views.py"),
    Row(
        "BYOL", "byol", "two views", ("BYOLLoss",), "2006.07733", "test_two_views.py",
        ("TeacherStudentCallback",),
    ),
    Row("SimCLR", "simclr", "two views", ("NTXEntLoss",), "2002.05709", "test_methods.py"),
    Row("SimSiam", "simsiam", "two views", ("SimSiamLoss",), "2011.10566", "test_two_views.py"),
    Row("VICReg", "vicreg", "two views", ("VICRegLoss",), "2105.04906", "test_two_views.py"),
)  # fmt: skip


def table() -> str:
    """The table in Markdown."""
    lines = [
        "| method | forward | reads | losses | brings | paper | parity test |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{row.method}` | `{row.forward}` | {row.views} | {_code(row.losses)} | "
        f"{_code(row.callbacks)} | [{row.paper}](https://arxiv.org/abs/{row.paper}) | "
        f"`{row.parity}` |"
        for row in CATALOGUE
    ]
    return "\n".join(lines)


def _code(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)
