"""Images and videos of a run: ``media.jsonl`` and the files under ``media/``."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

from loguru import logger

from spt_registry._metrics_file import append_durably, drop_torn_line
from spt_registry.run.files import atomic_write_bytes

VIDEO_SUFFIXES = (".mp4", ".webm", ".gif")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif")
MAX_FILES = 10_000
"""Most files of one tag in one run."""


def folder_name(tag: str) -> str:
    """A tag as a file name: percent-encoded, so two tags never share one.

    Example:
        >>> folder_name("val/a b"), folder_name("..")
        ('val%2Fa%20b', '%2E%2E')
    """
    name = quote(tag, safe="", errors="backslashreplace").replace(".", "%2E")
    if len(name) > 150:
        name = f"{name[:100]}-{hashlib.sha256(tag.encode('utf-8', 'replace')).hexdigest()[:16]}"
    return name


def write_media(
    run_dir: Path, kind: str, tag: str, items: list[Any], step: int, attempt: int, **extra: Any
) -> None:
    """Write files and their lines in ``media.jsonl``; a tag that has ``MAX_FILES`` gets no more.

    Raises:
        TypeError: If an item is neither a path, bytes, an image object nor an array.
        ValueError: If an array has no image's shape or a path no known suffix.
    """
    folder = run_dir / "media" / folder_name(tag)
    contents = [encode(item, kind) for item in items]
    folder.mkdir(parents=True, exist_ok=True)
    names = os.listdir(folder)
    if len(names) + len(contents) > MAX_FILES:
        logger.warning(
            f"{folder} holds {MAX_FILES} files; no more are kept. Log {tag!r} less often."
        )
        return
    lines = []
    prefix = f"{step:08d}_{attempt}_"
    first = sum(name.startswith(prefix) for name in names)  # others of this step stay
    for index, (content, suffix) in enumerate(contents, first):
        path = folder / f"{prefix}{index}{suffix}"
        atomic_write_bytes(path, content)
        relative = os.path.relpath(path, run_dir)
        line = {"step": step, "tag": tag, "type": kind, "path": relative, "attempt": attempt}
        lines.append(json.dumps({**line, **extra}) + "\n")
    index_path = run_dir / "media.jsonl"
    if index_path.exists():
        drop_torn_line(index_path)
    append_durably(index_path, "".join(lines))


def encode(item: Any, kind: str) -> tuple[bytes, str]:
    """The bytes and the suffix of a medium."""
    suffixes = IMAGE_SUFFIXES if kind == "image" else VIDEO_SUFFIXES
    if isinstance(item, (str, Path)):
        path = Path(item)
        if path.suffix.lower() not in suffixes:
            raise ValueError(f"A {kind} must end with one of {suffixes}, got {str(path)!r}.")
        return path.read_bytes(), path.suffix.lower()
    if isinstance(item, bytes):
        return item, suffixes[0]
    if kind == "image" and hasattr(item, "convert"):  # PIL
        item = item.convert("RGB")
        return png(item.size[0], item.size[1], 3, item.tobytes()), ".png"
    if kind == "image" and hasattr(item, "shape"):
        return array_to_png(item), ".png"
    raise TypeError(f"A {kind} must be a path, bytes, or an array; got {type(item).__name__}.")


def array_to_png(array: Any) -> bytes:
    """An array ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)``: uint8, or floats in [0, 1]."""
    import numpy as np

    array = array.detach().cpu().numpy() if hasattr(array, "detach") else np.asarray(array)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim == 3 and array.shape[-1] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4):
        raise ValueError(
            f"An image must have shape (H, W), (H, W, C) or (C, H, W), got {array.shape}."
        )
    if array.dtype != np.uint8:
        array = np.nan_to_num(array.astype(np.float64)).clip(0, 1)
        array = (array * 255).round().astype(np.uint8)
    height, width, channels = array.shape
    return png(width, height, channels, np.ascontiguousarray(array).tobytes())


def png(width: int, height: int, channels: int, pixels: bytes) -> bytes:
    """A PNG file of 8-bit pixels in rows."""
    colour = {1: 0, 3: 2, 4: 6}[channels]
    stride = width * channels
    rows = b"".join(b"\0" + pixels[i * stride : (i + 1) * stride] for i in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
