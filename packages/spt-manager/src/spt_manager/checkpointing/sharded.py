"""Checkpoints of shards: a directory of its own per save, a marker, and a pointer that is switched.

A directory is never written over, so a crash leaves the previous one as it was.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from pathlib import Path

from spt_registry.run import atomic_write_json

MARKER = "complete.json"


def mark_complete(folder: Path) -> None:
    """Write the marker: name, size and checksum of every file of the checkpoint."""
    atomic_write_json(folder / MARKER, _contents(folder))


def is_complete(folder: Path) -> bool:
    """Whether a marked checkpoint holds every file as it was written."""
    try:
        expected = json.loads((folder / MARKER).read_text())
    except (FileNotFoundError, ValueError):
        return False
    return bool(expected == _contents(folder))


def switch_pointer(pointer: Path, folder: Path, keep: int = 2) -> None:
    """Let a link name another checkpoint, at once or not at all, and drop the oldest ones.

    Args:
        pointer: The link, such as ``last.ckpt``.
        folder: The complete checkpoint, beside the pointer.
        keep: Checkpoints of this pointer to keep.
    """
    link = pointer.with_name(f".{pointer.name}.{os.getpid()}.tmp")
    link.unlink(missing_ok=True)
    link.symlink_to(folder.name)
    os.replace(link, pointer)
    family = sorted(
        (path for path in pointer.parent.glob(f"{pointer.stem}-step=*") if path.is_dir()),
        key=lambda path: path.stat().st_mtime_ns,
    )
    for old in [path for path in family if path != folder][: len(family) - keep]:
        shutil.rmtree(old)


def _contents(folder: Path) -> dict[str, list[int]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MARKER)
    return {str(path.relative_to(folder)): [path.stat().st_size, _checksum(path)] for path in files}


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return value
