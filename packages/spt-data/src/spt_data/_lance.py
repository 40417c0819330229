"""Lance tables: written whole or not at all, and read by row in any process."""

from __future__ import annotations

import importlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


def lance() -> Any:
    """The library.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        return importlib.import_module("lance")
    except ImportError as error:
        raise ImportError(
            'Lance files need pylance, which is not installed: pip install "spt-data[lance]".'
        ) from error


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse to replace what is there unasked.

    Raises:
        FileExistsError: If there is something and ``overwrite`` is False.
    """
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} is there already; use overwrite=True to replace it.")


def side_file(path: Path, kind: str) -> Path:
    """Where the facts about a table stand: ``<path>.images.json`` or ``<path>.videos.json``."""
    return path.with_name(f"{path.name}.{kind}.json")


def write_table(path: Path, batches: Iterable[Any], schema: Any) -> None:
    """Write record batches beside ``path``, and put them there when they are complete.

    Errors of ``batches`` are raised as they are, and nothing is left behind.
    """
    failed: list[Exception] = []

    def watched() -> Iterator[Any]:
        try:
            yield from batches
        except Exception as error:
            failed.append(error)  # Lance turns it into an OSError with the text of a traceback
            raise

    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        lance().write_dataset(watched(), str(partial), schema=schema)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if failed:
            raise failed[0] from error
        raise
    if path.exists():
        shutil.rmtree(path)
    partial.rename(path)


def write_facts(file: Path, facts: Mapping[str, Any]) -> None:
    """Write a side file; it is the last thing to appear, and readers ask for it first."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    with draft.open("w") as stream:
        json.dump(facts, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(file)


def read_facts(file: Path) -> dict[str, Any]:
    """What a side file says.

    Raises:
        FileNotFoundError: If it is not there.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; build the dataset first.")
    facts: dict[str, Any] = json.loads(file.read_text())
    return facts


class Table:
    """Rows of a Lance folder; each process opens it for itself, for handles do not survive a fork."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handles: dict[int, Any] = {}

    def take(self, rows: Sequence[int], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Some rows, in this order; one that is asked for twice is read once."""
        process = os.getpid()
        if process not in self._handles:
            self._handles = {process: lance().dataset(str(self.path))}
        unique = sorted(set(rows))
        stored = self._handles[process].take(unique, columns=list(columns)).to_pylist()
        by_row = dict(zip(unique, stored, strict=True))
        return [dict(by_row[row]) for row in rows]

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_handles": {}}
