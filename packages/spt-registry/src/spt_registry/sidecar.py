"""``sidecar.json``: the source of truth about one run."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

from spt_registry.run.files import atomic_write_json, atomic_write_text

SCHEMA_VERSION = 1
TERMINAL = ("completed", "failed", "preempted", "interrupted")
ALIASES = {"success": "completed", "finished": "completed"}
MAX_BYTES = 64 * 1024 * 1024
LAST_SECOND = 253402300799.0  # of the year 9999
NOT_FINITE = {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf"}
DECODER = json.JSONDecoder(parse_constant=NOT_FINITE.__getitem__)


class BrokenSidecarError(ValueError):
    """A sidecar that cannot be used; the message says why."""


def make_sidecar(run_id: str, run_dir: str | Path, **fields: Any) -> dict[str, Any]:
    """A new run's sidecar, in the order of the file.

    Args:
        run_id: The run's id.
        run_dir: Its directory.
        **fields: Values other than the first ones, such as ``tags`` and ``hparams``.
    """
    now = time.time()
    first = {
        "schema_version": SCHEMA_VERSION,
        "run_id": run_id,
        "run_dir": str(Path(run_dir).absolute()),
        "status": "running",
        "created_at": now,
        "ended_at": None,
        "updated_at": now,
        "tags": [],
        "notes": "",
        "hparams": {},
        "config": {},
        "summary": {},
        "checkpoint_path": None,
        "last_checkpoint_path": None,
        "error": None,
    }
    return {**first, **fields}


def write_sidecar(path: str | Path, sidecar: dict[str, Any]) -> None:
    """Replace a sidecar; it is never half written."""
    atomic_write_json(path, sidecar)


def write_hparams(run_dir: str | Path, hparams: dict[str, Any]) -> None:
    """Replace ``hparams.yaml``, if there are any hyper-parameters."""
    if hparams:
        import yaml

        dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
        atomic_write_text(
            Path(run_dir) / "hparams.yaml", yaml.dump(hparams, Dumper=dumper, sort_keys=True)
        )


def load_sidecar(path: str | Path) -> dict[str, Any]:
    """A sidecar whose fields have the kinds that readers rely on.

    Raises:
        BrokenSidecarError: If it is too large, no JSON, or a field is of another kind.
        OSError: If it cannot be read.
    """
    return parse_sidecar(read_text(path))


def read_text(path: str | Path) -> str:
    """The text of a sidecar.

    Raises:
        BrokenSidecarError: If it is too large or no UTF-8.
        OSError: If it cannot be read.
    """
    try:
        return _read_once(path)
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        return _read_once(path)  # it was replaced on NFS meanwhile; its name leads to the new one


def _read_once(path: str | Path) -> str:
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe of that name shall not hang us
    try:
        size = os.fstat(handle).st_size
        if size > MAX_BYTES:
            raise BrokenSidecarError(f"it has {size} bytes, more than {MAX_BYTES}")
        return os.read(handle, size + 1).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BrokenSidecarError(f"it is no UTF-8: {error}") from error
    finally:
        os.close(handle)


def parse_sidecar(text: str) -> dict[str, Any]:
    """The values of a sidecar; the bare ``NaN`` of other writers becomes ``"nan"``.

    Raises:
        BrokenSidecarError: If it is no JSON, or a field is of another kind.
    """
    try:
        value: dict[str, Any] = DECODER.decode(text)
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
    if not value.get("run_id"):
        raise BrokenSidecarError("it has no run_id")
    for key, kinds in KINDS.items():
        if key in value and not isinstance(value[key], kinds):
            raise BrokenSidecarError(f"{key!r} is a {type(value[key]).__name__}")
    for key in ("created_at", "updated_at", "ended_at"):
        if not 0 <= (value.get(key) or 0) <= LAST_SECOND:
            raise BrokenSidecarError(f"{key!r} is no Unix time: {str(value[key])[:40]}")
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
