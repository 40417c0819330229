"""Who writes a run directory: one process at a time."""

from __future__ import annotations

import os
import secrets
import socket
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spt_registry.run.files import file_system_time

LEASE_S = 45.0
"""An owner on another host counts as gone when its heart has been silent for so long."""

_tokens: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()


def new_owner(writer: object) -> dict[str, Any]:
    """The token of a writer of this process."""
    token = secrets.token_hex(8)
    _tokens[token] = writer
    return {
        "token": token,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "job": os.environ.get("SLURM_JOB_ID"),
        "restart": os.environ.get("SLURM_RESTART_COUNT", "0"),
    }


def other_writer(folder: Path, sidecar: Mapping[str, Any]) -> str | None:
    """Words about the process that writes this run now, or ``None``."""
    owner = sidecar.get("owner")
    if sidecar.get("status") != "running" or not isinstance(owner, dict):
        return None
    words = f"process {owner.get('pid')} on {owner.get('host')}"
    if owner.get("host") == socket.gethostname():
        if owner.get("pid") == os.getpid():
            earlier = _tokens.get(str(owner.get("token")))
            return f"this very process ({words})" if earlier and not earlier.closed else None
        return words if _lives(owner.get("pid")) else None
    mine = (os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_RESTART_COUNT", "0"))
    if owner.get("job") and owner["job"] == mine[0] and owner.get("restart") != mine[1]:
        return None  # SLURM runs a job once at a time
    try:
        silent_s = file_system_time(folder) - os.stat(folder / "heartbeat").st_mtime
    except FileNotFoundError:
        return None
    return words if silent_s < LEASE_S else None


def _lives(pid: Any) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:  # no /proc: the signal's answer stands
        return True
