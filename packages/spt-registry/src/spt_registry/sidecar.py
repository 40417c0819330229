"""``sidecar.json``: the source of truth about one run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1
TERMINAL = ("completed", "failed", "preempted", "interrupted")
ALIASES = {"success": "completed", "finished": "completed"}
MAX_BYTES = 64 * 1024 * 1024


class BrokenSidecarError(ValueError):
    """A sidecar that cannot be used; the message says why."""


def load_sidecar(path: str | Path) -> dict[str, Any]:
    """A sidecar whose fields have the kinds that readers rely on.

    Raises:
        BrokenSidecarError: If it is too large, no JSON, or a field is of another kind.
        OSError: If it cannot be read.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            raise BrokenSidecarError(f"it has {size} bytes, more than {MAX_BYTES}")
        content = file.read(MAX_BYTES + 1)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BrokenSidecarError(f"it is no JSON: {error}") from error
    check_sidecar(value)
    return value


KINDS: dict[str, tuple[type, ...]] = {
    "run_id": (str,),
    "status": (str,),
    "created_at": (int, float, type(None)),
    "updated_at": (int, float, type(None)),
    "ended_at": (int, float, type(None)),
    "notes": (str, type(None)),
    "hparams": (dict,),
    "summary": (dict,),
    "config": (dict,),
    "tags": (list,),
    "checkpoint_path": (str, type(None)),
    "schema_version": (int,),
}


def check_sidecar(value: Any) -> None:
    """Refuse a sidecar that readers cannot use.

    Raises:
        BrokenSidecarError: With the field and what it holds.
    """
    if not isinstance(value, dict):
        raise BrokenSidecarError(f"it holds a {type(value).__name__}, not an object")
    if "run_id" not in value:
        raise BrokenSidecarError("it has no run_id")
    for key, kinds in KINDS.items():
        if key in value and not isinstance(value[key], kinds):
            raise BrokenSidecarError(f"{key!r} is a {type(value[key]).__name__}")
    if value.get("schema_version", SCHEMA_VERSION) > SCHEMA_VERSION:
        raise BrokenSidecarError(
            f"its schema_version is {value['schema_version']}, this package knows up to "
            f"{SCHEMA_VERSION}; upgrade spt-registry"
        )


def read_sidecar(path: Path) -> dict[str, Any] | None:
    """A sidecar, or ``None`` if there is none or it is broken."""
    try:
        return load_sidecar(path)
    except (FileNotFoundError, NotADirectoryError, BrokenSidecarError):
        return None
