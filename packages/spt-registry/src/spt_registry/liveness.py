"""Whether a run's process lives: by its heartbeat, and by one clock."""

from __future__ import annotations

import os
from pathlib import Path

from spt_registry.sidecar import TERMINAL

HEARTBEAT_TIMEOUT_S = 180.0
"""A heart that has been silent for so long has stopped."""


def touch_heartbeat(run_dir: str | Path) -> None:
    """Beat once; the file system's own clock stamps it."""
    path = f"{run_dir}/heartbeat"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666))
    os.utime(path)


def heartbeat_mtime(run_dir: str | Path) -> float | None:
    """When the heart last beat (Unix time), or ``None`` without one."""
    try:
        return os.stat(f"{run_dir}/heartbeat").st_mtime
    except OSError:
        return None


def is_alive(
    status: str, hb_mtime: float | None, now: float, timeout_s: float = HEARTBEAT_TIMEOUT_S
) -> bool:
    """Whether a run of this status and heartbeat is alive.

    Args:
        status: What its sidecar says.
        hb_mtime: When its heart last beat.
        now: Unix time by the clock of the same file system; see
            :func:`spt_registry.run.files.file_system_time`.
        timeout_s: Longest silence. A beat that lies as far in the future is no sign of life.

    Example:
        >>> is_alive("running", 1000.0, 1100.0), is_alive("running", 1000.0, 1200.0)
        (True, False)
    """
    if status in TERMINAL or status == "orphaned" or hb_mtime is None:
        return False
    return abs(now - hb_mtime) < timeout_s
