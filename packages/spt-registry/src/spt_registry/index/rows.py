"""A run's row of the index, made from its sidecar and ``user.json``."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from spt_registry.run.files import flatten
from spt_registry.sidecar import ALIASES, BrokenSidecarError, parse_sidecar, read_text
from spt_registry.user_file import apply_edits, read_user_file

COLUMNS_OF_THEIR_OWN = "run_id status created_at updated_at ended_at notes tags hparams summary"
NOT_INDEXED = frozenset(f"{COLUMNS_OF_THEIR_OWN} owner run_dir".split())

ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))

INSERT = "INSERT OR REPLACE INTO runs VALUES (?, NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
"""Takes a path and :func:`as_columns`."""

CUT = """
SELECT json_remove(:text, '$.hparams', '$.summary'),
    json_extract(:text, '$.hparams'), json_extract(:text, '$.summary')
WHERE json_valid(:text)
    AND json_type(:text, '$.hparams') = 'object' AND json_type(:text, '$.summary') = 'object'
"""


def read_files(folder: str) -> tuple[str, dict[str, Any]]:
    """The text of a run's sidecar, and its ``user.json``.

    Raises:
        BrokenSidecarError: If one of them is of no use.
        OSError: If one of them cannot be read.
    """
    return read_text(f"{folder}/sidecar.json"), read_user_file(folder)


def as_columns(connection: sqlite3.Connection, text: str, edits: dict[str, Any]) -> tuple[Any, ...]:
    """The values of :data:`INSERT` after the path.

    Args:
        connection: Any database.
        text: A sidecar.
        edits: What people say about the run.

    Raises:
        BrokenSidecarError: If the sidecar is of no use.
    """
    try:
        sidecar, hparams, summary = _cut(connection, text) or _parsed(text)
        apply_edits(sidecar, edits)
        status = sidecar.get("status", "running")
        return (
            as_text(sidecar["run_id"]),
            as_text(ALIASES.get(status, status)),
            float(sidecar.get("created_at") or 0.0),
            float(sidecar.get("updated_at") or 0.0),
            sidecar.get("ended_at"),
            as_text(sidecar.get("notes") or ""),
            as_json([str(tag) for tag in sidecar.get("tags") or ()]),
            summary,
            hparams,
            as_json({key: value for key, value in sidecar.items() if key not in NOT_INDEXED}),
        )
    except RecursionError as error:
        raise BrokenSidecarError("it nests too deeply") from error


def _parsed(text: str) -> tuple[dict[str, Any], str, str]:
    """A sidecar, and the JSON of its hyper-parameters and metrics, both flat."""
    sidecar = parse_sidecar(text)
    hparams, summary = (sidecar.get(key) or {} for key in ("hparams", "summary"))
    return sidecar, as_json(flatten(hparams)), as_json(flatten(summary))


def _cut(connection: sqlite3.Connection, text: str) -> tuple[dict[str, Any], str, str] | None:
    """The same in half the time: SQLite cuts the two largest parts out of the text.

    ``None`` where it might not read the text as Python does, or these parts are not flat.
    """
    if not _is_plain(text):
        return None
    try:
        found = connection.execute(CUT, {"text": text}).fetchone()
    except sqlite3.OperationalError:  # malformed
        return None
    if found is None or not _is_flat(found[1]) or not _is_flat(found[2]):
        return None
    return parse_sidecar(found[0]), found[1], found[2]


def _is_plain(text: str) -> bool:
    """Whether SQLite surely reads a text as Python does: no NaN, no escapes, little nesting."""
    if "NaN" in text or "Infinity" in text or "\0" in text:
        return False
    if "\\" in text and "\\u" in text:
        return False
    return text.count("{") < 100 and text.count("[") < 100


def _is_flat(json_object: str) -> bool:
    return json_object.rfind("{") == 0 and "[" not in json_object


def as_text(text: str) -> str:
    """Without lone surrogates, which are no UTF-8, and zeros, at which SQLite would stop."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def as_json(value: Any) -> str:
    """JSON that SQLite can read: finite numbers, valid text."""
    try:
        text = ENCODER.encode(value)
    except ValueError:  # such as 1e999
        return as_json(_clean(value))
    strange = "\\ud" in text or "\\u0000" in text
    return ENCODER.encode(_clean(value)) if strange else text


def _clean(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0.0 else str(value)
    if isinstance(value, str):
        return as_text(value)
    if isinstance(value, dict):
        return {as_text(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value
