"""A run's row of the index, made from its sidecar and ``user.json``."""

from __future__ import annotations

import json
from typing import Any

from spt_registry.run.files import flatten
from spt_registry.sidecar import ALIASES, BrokenSidecarError, parse_sidecar, read_text
from spt_registry.user_file import merge_user_file

COLUMNS_OF_THEIR_OWN = "run_id status created_at updated_at ended_at notes tags hparams summary"
NOT_INDEXED = frozenset(f"{COLUMNS_OF_THEIR_OWN} owner run_dir".split())

ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))

INSERT = """
INSERT OR REPLACE INTO runs VALUES (?1, NULL, ?2, ?3, ?4, ?5, ?6, ?7, ?8,
    coalesce(json_extract(?9, '$.summary'), ?10), coalesce(json_extract(?9, '$.hparams'), ?11), ?12)
"""
"""Takes a path and :func:`as_columns`. SQLite cuts the two largest parts out of the sidecar's text
in a third of the time that writing them anew would take."""


def as_columns(folder: str) -> tuple[Any, ...]:
    """The values of :data:`INSERT` after the path.

    Raises:
        BrokenSidecarError: If the sidecar or ``user.json`` is of no use.
        OSError: If a file cannot be read.
    """
    text = read_text(f"{folder}/sidecar.json")
    sidecar = parse_sidecar(text)
    merge_user_file(folder, sidecar)
    try:
        return _columns(text, sidecar)
    except RecursionError as error:
        raise BrokenSidecarError("it nests too deeply") from error


def _columns(text: str, sidecar: dict[str, Any]) -> tuple[Any, ...]:
    status = sidecar.get("status", "running")
    summary, hparams = sidecar.get("summary") or {}, sidecar.get("hparams") or {}
    plain = _is_plain(text) and _is_flat(summary) and _is_flat(hparams)
    return (
        as_text(sidecar["run_id"]),
        as_text(ALIASES.get(status, status)),
        float(sidecar.get("created_at") or 0.0),
        float(sidecar.get("updated_at") or 0.0),
        sidecar.get("ended_at"),
        as_text(sidecar.get("notes") or ""),
        as_json([str(tag) for tag in sidecar.get("tags") or ()]),
        text if plain else None,
        "{}" if plain else as_json(flatten(summary)),
        "{}" if plain else as_json(flatten(hparams)),
        as_json({key: value for key, value in sidecar.items() if key not in NOT_INDEXED}),
    )


def _is_plain(text: str) -> bool:
    """Whether SQLite surely reads a text as Python does: no NaN, no escapes, little nesting."""
    if "NaN" in text or "Infinity" in text or "\\u" in text:
        return False
    return text.count("{") < 100 and text.count("[") < 100


def _is_flat(values: dict[str, Any]) -> bool:
    kinds = set(map(type, values.values()))
    return dict not in kinds and list not in kinds


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
