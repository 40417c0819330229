"""Tables for people, tab-separated values and JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

LONGEST_RICH_TABLE = 200


def show_rows(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on a terminal, tab-separated values elsewhere.

    Characters that would move a cursor or break a line are shown as escapes.
    """
    texts = [plain_row([cell(value) for value in row]) for row in rows]
    if not sys.stdout.isatty():
        head = [plain(column) for column in columns]
        click.echo("\n".join("\t".join(row) for row in [head, *texts]))
    elif len(rows) <= LONGEST_RICH_TABLE:
        _show_rich(columns, texts)
    else:
        _show_aligned(columns, texts)


def _show_rich(columns: Sequence[str], texts: Iterable[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in columns:
        table.add_column(Text(plain(column)))
    for row in texts:
        table.add_row(*map(Text, row))  # no markup: names are data
    Console().print(table)


def _show_aligned(columns: Sequence[str], texts: list[list[str]]) -> None:
    head = [plain(column) for column in columns]
    widths = [max(map(len, column)) for column in zip(head, *texts, strict=True)]
    for row in [head, *texts]:
        click.echo("  ".join(map(str.ljust, row, widths)).rstrip())


def show_json(rows: Iterable[Any]) -> None:
    """One JSON value per line."""
    for row in rows:
        click.echo(json.dumps(row))


def cell(value: Any) -> str:
    """A value as short text."""
    if type(value) is str:
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return "" if value is None else str(value)


def plain_row(texts: list[str]) -> list[str]:
    """Texts without control characters; nearly all rows have none, so the whole is asked first."""
    return texts if "".join(texts).isprintable() else list(map(plain, texts))


def plain(text: str) -> str:
    """Text without control characters, which may come from anybody's sidecar.

    Example:
        >>> plain("a\\tb\\x1b[2J")
        'a\\\\tb\\\\x1b[2J'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
