"""A run's row of the index, made from its sidecar and ``user.json``."""

from __future__ import annotations

import json
from typing import Any

from spt_registry.run.files import flatten
from spt_registry.sidecar import ALIASES, BrokenSidecarError, load_sidecar
from spt_registry.user_file import merge_user_file

COLUMNS_OF_THEIR_OWN = "run_id status created_at updated_at ended_at notes tags hparams summary"
NOT_INDEXED = frozenset(f"{COLUMNS_OF_THEIR_OWN} owner run_dir".split())


def as_columns(folder: str) -> tuple[Any, ...]:
    """The columns from ``run_id`` on.

    Raises:
        BrokenSidecarError: If the sidecar or ``user.json`` is of no use.
        OSError: If a file cannot be read.
    """
    sidecar = load_sidecar(f"{folder}/sidecar.json")
    merge_user_file(folder, sidecar)
    try:
        return _columns(sidecar)
    except RecursionError as error:
        raise BrokenSidecarError("it nests too deeply") from error


def _columns(sidecar: dict[str, Any]) -> tuple[Any, ...]:
    status = sidecar.get("status", "running")
    rest = {key: value for key, value in sidecar.items() if key not in NOT_INDEXED}
    return (
        as_text(sidecar["run_id"]),
        as_text(ALIASES.get(status, status)),
        float(sidecar.get("created_at") or 0.0),
        float(sidecar.get("updated_at") or 0.0),
        sidecar.get("ended_at"),
        as_text(sidecar.get("notes") or ""),
        as_json([str(tag) for tag in sidecar.get("tags") or ()]),
        as_json(as_flat(sidecar.get("hparams") or {})),
        as_json(as_flat(sidecar.get("summary") or {})),
        as_json(rest),
    )


def as_flat(values: dict[str, Any]) -> dict[str, Any]:
    """With dotted keys, also where another writer nested them."""
    if any(value and isinstance(value, (dict, list)) for value in values.values()):
        return flatten(values)
    return values


def as_text(text: str) -> str:
    """Without lone surrogates, which are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def as_json(value: Any) -> str:
    """JSON that SQLite can read: finite numbers, valid text."""
    try:
        text = json.dumps(value, allow_nan=False)
    except ValueError:  # such as 1e999
        return as_json(_clean(value))
    return text if "\\ud" not in text else json.dumps(_clean(value))


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
