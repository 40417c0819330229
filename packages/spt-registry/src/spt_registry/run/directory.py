"""The directory of a run: ``{cache_dir}/runs/{YYYYMMDD}/{HHMMSS}/{run_id}``."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from loguru import logger

from spt_registry.run.files import atomic_write_json
from spt_registry.run.identity import RunIdentity


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
    with its owner; an entry of another owner (a recycled job id) is not followed.

    Args:
        cache_dir: Root of all runs; made if missing.
        identity: Which run.
        now: Unix time of a new directory's name; the clock's by default.

    Raises:
        OSError: If the cache directory cannot be written.
    """
    cache_dir = Path(cache_dir).expanduser().absolute()
    require_writable(cache_dir)
    entry = cache_dir / ".runs_by_id" / f"{identity.launcher}-{identity.run_id}.json"
    if identity.launcher == "explicit" or identity.restart_count > 0:
        earlier = _earlier(entry, cache_dir, identity)
        if earlier is not None:
            return RunDir(earlier, identity.run_id, resumed=True)
    when = time.localtime(time.time() if now is None else now)
    day, clock = time.strftime("%Y%m%d", when), time.strftime("%H%M%S", when)
    path = cache_dir / "runs" / day / clock / identity.run_id
    path.mkdir(parents=True, exist_ok=True)
    meta = {
        "run_id": identity.run_id,
        "launcher": identity.launcher,
        "owner": identity.owner,
        "run_dir": str(path.relative_to(cache_dir)),
        "created_at": time.time() if now is None else now,
    }
    entry.parent.mkdir(exist_ok=True)
    atomic_write_json(entry, meta)
    atomic_write_json(path / "run_meta.json", meta)
    return RunDir(path, identity.run_id, resumed=False)


def _earlier(entry: Path, cache_dir: Path, identity: RunIdentity) -> Path | None:
    try:
        meta = json.loads(entry.read_text())
        path = cache_dir / str(meta["run_dir"])
        owner = meta["owner"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        logger.warning(f"{entry} cannot be read ({error}); the run gets a new directory.")
        return None
    if owner != identity.owner or not path.is_dir():
        logger.warning(
            f"{entry} names {path}, which is gone or belongs to {owner}; the run gets a new "
            "directory."
        )
        return None
    return path


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
