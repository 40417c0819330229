"""A W&B offline run: ``offline-run-*/run-ID.wandb``, LevelDB's log format around protobuf records.

Only what a run is made of is read: its config, history, summary, exit code. The field numbers
are those of ``wandb_internal.proto``. https://github.com/google/leveldb/blob/main/doc/log_format.md
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spt_registry.migrate.imports import ForeignRun, MigrationReport, numbers

BLOCK = 32768
HEADER = 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
HISTORY, SUMMARY, CONFIG, RUN, EXIT = 2, 3, 5, 17, 18
NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def wandb_runs(source: Path, cache_dir: Path, report: MigrationReport) -> Iterator[ForeignRun]:
    """All offline runs below a folder."""
    for path in sorted(source.rglob("run-*.wandb")):
        try:
            yield read_run(path)
        except (OSError, ValueError, struct.error, IndexError) as error:
            report.problems.append(f"{path} is no readable W&B file: {error}.")


def read_run(path: Path) -> ForeignRun:
    """One run; a record that a crash tore off at the end is left out.

    Raises:
        ValueError: If the file is of another format.
    """
    run = ForeignRun(path.stem.removeprefix("run-"), status="interrupted")
    seconds = 0.0
    for record in records(path.read_bytes()):
        for number, value in fields(record):
            if number == HISTORY:
                _add_history(run, value)
            elif number in (SUMMARY, CONFIG):
                _update(run.summary if number == SUMMARY else run.hparams, value)
            elif number == RUN:
                _describe(run, value)
            elif number == EXIT:
                code = dict(fields(value))
                run.status = "failed" if code.get(1, 0) else "completed"
                seconds = float(code.get(2, 0))
    run.hparams.pop("_wandb", None)
    run.summary = {k: v for k, v in numbers(run.summary).items() if not k.startswith("_")}
    run.ended_at = run.created_at + seconds if seconds else None
    return run


def _describe(run: ForeignRun, message: bytes) -> None:
    tags = list(run.tags)
    for number, value in fields(message):
        if number == 1:
            run.run_id = value.decode()
        elif number in (3, 6):  # project, group
            tags.append(f"{'project' if number == 3 else 'group'}:{value.decode()}")
        elif number == 4:
            _update(run.hparams, value)
        elif number == 8:
            run.notes = run.notes or value.decode()  # the display name, unless there are notes
        elif number == 9:
            run.notes = value.decode()
        elif number == 10:
            tags.append(value.decode())
        elif number == 17:
            time = dict(fields(value))
            run.created_at = time.get(1, 0) + time.get(2, 0) / 1e9
    run.tags = [tag for tag in dict.fromkeys(tags) if not tag.endswith(":")]


def _add_history(run: ForeignRun, message: bytes) -> None:
    values: dict[str, Any] = {}
    _update(values, message)
    row = {k: v for k, v in numbers(values).items() if not k.startswith("_")}
    if row:
        run.rows.append({"step": int(values.get("_step", len(run.rows))), **row})


def _update(target: dict[str, Any], message: bytes) -> None:
    """Take over the items of a history, summary or config record."""
    for number, item in fields(message):
        if number == 1 and isinstance(item, bytes):
            keys, value = _item(item)
            if keys:
                target[".".join(keys)] = value


def _item(message: bytes) -> tuple[list[str], Any]:
    """Key, nested keys and value: as JSON, or, in newer files, typed."""
    keys: list[str] = []
    value: Any = None
    for number, content in fields(message):
        if number in (1, 2) and content:
            keys.append(content.decode())
        elif number in (8, 16):
            value = json.loads(content)
        elif number == 4:
            value = bool(content)
        elif number == 5:
            value = (content >> 1) ^ -(content & 1)  # zigzag
        elif number == 6:
            (value,) = struct.unpack("<d", content)
        elif number == 7:
            value = content.decode()
    return keys, NOT_FINITE.get(value, value) if isinstance(value, str) else value


def records(content: bytes) -> Iterator[bytes]:
    """The records of a log.

    Raises:
        ValueError: If it is no W&B file.
    """
    if content[:4] != b":W&B":
        raise ValueError("it does not begin with ':W&B'")
    position, parts = HEADER, b""
    while position + HEADER <= len(content):
        if BLOCK - position % BLOCK < HEADER:  # the rest of a block is padding
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        position += HEADER
        part = content[position : position + length]
        position += length
        if len(part) < length or kind not in (FULL, FIRST, MIDDLE, LAST):
            return  # torn off
        parts = part if kind in (FULL, FIRST) else parts + part
        if kind in (FULL, LAST):
            yield parts


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Field numbers and values of a protobuf message: varints as integers, the rest as bytes.

    Raises:
        ValueError: If it is none.
    """
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, position = _varint(message, position)
            yield number, value
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            yield number, message[position : position + size]
            position += size
        elif wire == 2:
            length, position = _varint(message, position)
            if position + length > len(message):
                raise ValueError("a record ends too early")
            yield number, message[position : position + length]
            position += length
        else:
            raise ValueError(f"a record has the unknown wire type {wire}")


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
        if shift > 63:
            raise ValueError("a number is too long")
