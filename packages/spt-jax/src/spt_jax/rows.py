"""The rows of a run's ``metrics.csv`` up to a checkpoint; what came later is logged again."""

from __future__ import annotations

import os
from pathlib import Path


def count_rows(path: Path) -> int:
    """Complete rows below the header; 0 without a file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return 0
    return max(content.count(b"\n") - 1, 0)


def keep_rows(path: Path, rows: int) -> None:
    """Cut a file after so many rows; one that has fewer stays as it is."""
    if count_rows(path) <= rows:
        return
    content = path.read_bytes()
    end = -1
    for _ in range(rows + 1):  # the header is a line, too
        end = content.index(b"\n", end + 1)
    with path.open("r+b") as file:
        file.truncate(end + 1)
        os.fsync(file.fileno())
