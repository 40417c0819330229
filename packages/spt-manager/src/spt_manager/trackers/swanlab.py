"""SwanLab, by its own Lightning logger."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from spt_manager.trackers.base import Identity, Tracker, present


class SwanLabTracker(Tracker):
    """Keep the id, project and experiment name."""

    name = "swanlab"
    logger_class = "SwanLabLogger"

    def identity(self, logger: Any, run_id: str) -> Identity:
        """The user's id, or a new one."""
        wanted = logger._init_kwargs
        names = {name: wanted.get(name) for name in ("project", "experiment_name", "group")}
        return present({"id": wanted.get("id") or secrets.token_hex(10), **names})

    def anchor(self, logger: Any, run_dir: Path, identity: Identity, resumed: bool) -> None:
        """Write below the run's directory under the id."""
        folder = run_dir / "swanlog"
        folder.mkdir(exist_ok=True)
        logger._init_kwargs.update(id=identity["id"], resume="allow", log_dir=str(folder))
        logger._save_dir = str(run_dir)

    def end(self, logger: Any, failed: bool) -> None:
        """Finish it, so that a sweep in one process makes several runs."""
        if logger._experiment is not None:
            import swanlab

            if swanlab.get_run() is not None:
                swanlab.finish(state="crashed" if failed else "success")
            logger._experiment = None
