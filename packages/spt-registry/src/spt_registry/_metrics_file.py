"""``metrics.csv``: append only, late columns without rewriting the file for each of them."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from spt_registry.run.files import atomic_file, sync_folder

SMALL = 256 * 1024  # bytes that may be rewritten at any time
GROWTH = 1.5  # a larger file is rewritten only after it has grown by this factor
LATE_COLUMNS = ["row", "step", "name", "value"]


class MetricsFile:
    """One row per call, absent values empty.

    Rows are appended. Columns that appear late widen a small file at once; a large one keeps
    the new cells in ``metrics.late.csv`` (row, step, name, value) until it has grown by half,
    so all rewrites together cost a few times the final size. Folding the late cells in twice
    gives the same file, so a crash between the two files loses nothing.

    Args:
        path: The file. An unterminated last line, left by a crash, is dropped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.late_path = path.with_name(path.stem + ".late.csv")
        self.columns: list[str] = []
        self.late: set[str] = set()
        self.num_rows = 0
        self._widened_size = self._size = 0
        if path.exists():
            drop_torn_line(path)
            self.columns = read_header(path)
            self.num_rows = max(0, count_lines(path) - 1)
            self._size = path.stat().st_size
        if self.late_path.exists():
            drop_torn_line(self.late_path)
            self.fold()

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows to the disk.

        Raises:
            OSError: If that fails; the file then ends where it did before.
        """
        if self.columns and self.path.stat().st_size != self._size:  # cut back by a resume
            self.num_rows = max(0, count_lines(self.path) - 1)
        names = dict.fromkeys(name for row in rows for name in row)
        new = [name for name in names if name not in self.columns and name not in self.late]
        if new or self.late:
            self._make_room(new)
        if self.late:
            self._append_late(rows)
        append_durably(self.path, csv_lines(self.columns, rows))
        self.num_rows += len(rows)
        self._size = self.path.stat().st_size

    def _make_room(self, new: list[str]) -> None:
        size = self.path.stat().st_size if self.columns else 0
        if size <= SMALL or size >= GROWTH * self._widened_size:
            self.fold(new)
        else:
            self.late.update(new)

    def _append_late(self, rows: Sequence[Mapping[str, Any]]) -> None:
        cells = [
            {"row": self.num_rows + i, "step": row["step"], "name": name, "value": value}
            for i, row in enumerate(rows)
            for name, value in row.items()
            if name in self.late
        ]
        header = "" if self.late_path.exists() else ",".join(LATE_COLUMNS) + "\n"
        append_durably(self.late_path, header + csv_lines(LATE_COLUMNS, cells))

    def fold(self, new: Iterable[str] = ()) -> None:
        """Rewrite the file once with all late columns and, empty, the new ones."""
        cells = read_late(self.late_path)
        late = dict.fromkeys(name for row in cells.values() for name in row if name != "step")
        added = [n for n in dict.fromkeys([*late, *self.late, *new]) if n not in self.columns]
        columns = [*self.columns, *added]
        with atomic_file(self.path) as target:
            target.write(csv_lines(columns, [dict(zip(columns, columns, strict=True))]).encode())
            if self.columns:
                with self.path.open("rb") as source:
                    source.readline()
                    _copy_rows(source, target, columns, len(added), cells)
        self.columns, self.late = columns, set()
        self._widened_size = self._size = self.path.stat().st_size
        if self.late_path.exists():
            self.late_path.unlink()
            sync_folder(self.path.parent)


def _copy_rows(
    source: IO[bytes],
    target: IO[bytes],
    columns: list[str],
    num_added: int,
    cells: Mapping[int, Mapping[str, str]],
) -> None:
    pad = b"," * num_added + b"\n"
    if not cells and not num_added:
        shutil.copyfileobj(source, target, 1 << 20)
        return
    if not cells:
        while block := source.read(1 << 20):
            target.write(block.replace(b"\n", pad))
        return
    for index, line in enumerate(source):
        late = cells.get(index)
        padded = line.rstrip(b"\r\n") + pad
        if late is not None:
            values = next(csv.reader([padded.decode()]))
            row = dict(zip(columns, values, strict=False))
            if row.get("step") == late["step"]:  # else the row was cut off since
                padded = csv_lines(columns, [{**row, **late}]).encode()
        target.write(padded)


def read_late(path: Path) -> dict[int, dict[str, str]]:
    """The late cells by row number; a torn last line is left out."""
    cells: dict[int, dict[str, str]] = {}
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            for cell in csv.DictReader(_whole_lines(file)):
                index = int(cell["row"])
                if cells.get(index, {}).get("step") != cell["step"]:  # a resume wrote it anew
                    cells[index] = {"step": cell["step"]}
                cells[index][cell["name"]] = cell["value"]
    return cells


def _whole_lines(lines: Iterable[str]) -> Iterable[str]:
    return (line for line in lines if line.endswith("\n"))


def append_durably(path: Path, text: str) -> None:
    """Append text and fsync; a failure, such as a full disk, cuts the file back."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        size = os.fstat(handle).st_size
        try:
            left = memoryview(text.encode("utf-8"))
            while left:
                left = left[os.write(handle, left) :]
            os.fsync(handle)
        except OSError:
            os.ftruncate(handle, size)
            raise
    finally:
        os.close(handle)


def drop_torn_line(path: Path) -> None:
    """Cut an unterminated last line off."""
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        position = end
        while position > 0:
            start = max(0, position - 65536)
            file.seek(start)
            found = file.read(position - start).rfind(b"\n")
            if found >= 0:
                position = start + found + 1
                break
            position = start
        if position < end:
            file.truncate(position)


def read_header(path: Path) -> list[str]:
    """The columns of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return next(csv.reader(file), [])


def count_lines(path: Path) -> int:
    """Line ends in a file."""
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def csv_lines(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV; keys that are no column are left out."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writerows(rows)
    return buffer.getvalue()
