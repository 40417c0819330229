"""The directory of a run: ``{cache_dir}/runs/{YYYYMMDD}/{HHMMSS}/{run_id}``."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loguru import logger

from spt_registry.run.files import atomic_write_json
from spt_registry.run.identity import RunIdentity

EXPIRY_S = 30 * 86400.0


@dataclass(frozen=True)
class RunDir:
    """Where a run writes.

    Attributes:
        path: The directory; it exists.
        run_id: The run's id, and the directory's name.
        resumed: Whether it was there before.
    """

    path: Path
    run_id: str
    resumed: bool


def open_run_dir(
    cache_dir: str | Path, identity: RunIdentity, *, now: float | None = None
) -> RunDir:
    """The directory of this run: the one it had before, or a new one.

    A run has one already if its id was chosen by the user, or if the scheduler or torchrun
    says that it started the run again. Where it is stands in ``{cache_dir}/.runs_by_id``, together
    with its owner. Schedulers use the numbers of jobs again, so an entry is not followed that is of
    another owner, of a restart that this job has yet to come to, or of a run silent for a month.

    Args:
        cache_dir: Root of all runs; made if missing.
        identity: Which run.
        now: Unix time of a new directory's name; the clock's by default.

    Raises:
        OSError: If the cache directory cannot be written.
    """
    cache_dir = Path(cache_dir).expanduser().absolute()
    require_writable(cache_dir)
    name = "-".join(filter(None, (identity.launcher, identity.run_id, identity.slot)))
    entry = cache_dir / ".runs_by_id" / f"{name}.json"
    if identity.launcher == "explicit" or identity.restart_count > 0:
        earlier = _earlier(entry, cache_dir, identity)
        if earlier is not None:
            path = cache_dir / earlier["run_dir"]
            atomic_write_json(entry, {**earlier, "restart_count": identity.restart_count})
            return RunDir(path, identity.run_id, resumed=True)
    created_at = time.time() if now is None else now
    path = _new_folder(cache_dir, identity.run_id, created_at)
    meta = {
        "run_id": identity.run_id,
        "launcher": identity.launcher,
        "owner": identity.owner,
        "run_dir": str(path.relative_to(cache_dir)),
        "created_at": created_at,
        "restart_count": identity.restart_count,
    }
    entry.parent.mkdir(exist_ok=True)
    atomic_write_json(entry, meta)
    atomic_write_json(path / "run_meta.json", meta)
    return RunDir(path, identity.run_id, resumed=False)


def _new_folder(cache_dir: Path, run_id: str, when: float) -> Path:
    """A folder of its own, of a later second if there is one of this second already."""
    while True:
        local = time.localtime(when)
        day, clock = time.strftime("%Y%m%d", local), time.strftime("%H%M%S", local)
        path = cache_dir / "runs" / day / clock / run_id
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            when += 1
        else:
            return path


def _earlier(entry: Path, cache_dir: Path, identity: RunIdentity) -> dict[str, Any] | None:
    """What stands in an entry, if it is of this run."""
    try:
        meta: dict[str, Any] = json.loads(entry.read_text())
        path = cache_dir / str(meta["run_dir"])
        owner, restart_count = meta["owner"], int(meta.get("restart_count", 0))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        logger.warning(f"{entry} cannot be read ({error}); the run gets a new directory.")
        return None
    if owner != identity.owner:
        why = f"belongs to {owner}"
    elif not path.is_dir():
        why = "is gone"
    elif identity.launcher == "explicit":
        return meta
    elif restart_count >= identity.restart_count:
        why = f"was in restart {restart_count} already, and this job is in {identity.restart_count}"
    elif time.time() - _last_sign_of_life(path) > EXPIRY_S:
        why = "has been silent for a month, so that it is of another job with the same number"
    else:
        return meta
    logger.warning(f"{entry} names {path}, which {why}; the run gets a new directory.")
    return None


def _last_sign_of_life(path: Path) -> float:
    files = [path, path / "heartbeat", path / "sidecar.json", path / "checkpoints"]
    return max(file.stat().st_mtime for file in files if file.exists())


def require_writable(folder: Path) -> None:
    """Make a folder, or say why it cannot hold runs.

    Raises:
        OSError: With the path, the reason and what to do.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise type(error)(
            error.errno,
            f"The cache directory {str(folder)!r} cannot be written ({error.strerror}). Choose "
            "another one: `spt.set(cache_dir=...)` or the environment variable SPT_CACHE_DIR",
        ) from error
