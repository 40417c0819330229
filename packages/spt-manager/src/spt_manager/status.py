"""How a run ended, in its sidecar, whichever rank it was that failed."""

from __future__ import annotations

import time
import traceback
from pathlib import Path

import lightning as pl
import torch.distributed as dist
from spt_registry import RegistryLogger
from spt_registry.run import atomic_write_json, atomic_write_text
from spt_registry.writer import read_sidecar

from spt_manager.preemption import Stopped

PATIENCE_S = 10.0


class RunStatus(pl.Callback):
    """Tells the registry how a run ended, before Lightning closes its loggers.

    Args:
        registry: The run's logger.
        run_dir: Where the ranks other than 0 leave what went wrong with them.
    """

    def __init__(self, registry: RegistryLogger, run_dir: Path) -> None:
        self.registry = registry
        self.run_dir = run_dir
        self.started_at = time.time()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Record the error, and whether it was somebody who stopped the run."""
        if isinstance(exception, Stopped):
            self.registry.outcome = exception.reason
            return
        stopped = isinstance(exception, KeyboardInterrupt)
        self.registry.outcome = "interrupted" if stopped else "failed"
        text = "".join(traceback.format_exception(exception))
        if trainer.is_global_zero:
            self.registry.error = "\n".join([text, *errors_of_ranks(self.run_dir, self.started_at)])
        else:
            path = self.run_dir / "errors" / f"rank-{trainer.global_rank}.txt"
            path.parent.mkdir(exist_ok=True)
            atomic_write_text(path, text)


def ending_of(run_dir: Path) -> str | None:
    """The status in a run's sidecar; ``None`` if there is none yet."""
    sidecar = read_sidecar(run_dir / "sidecar.json")
    return None if sidecar is None else str(sidecar["status"])


def end_as_failed(trainer: pl.Trainer, error: BaseException) -> None:
    """End a run that failed outside of the Trainer's own calls, such as in building a part."""
    for entry in trainer.loggers:
        if isinstance(entry, RegistryLogger) and entry.run_dir is not None:
            entry.experiment.save()  # it may not have begun to write
            entry.outcome = "failed"
            entry.error = "".join(traceback.format_exception(error))
            entry.finalize("failed")


def errors_of_ranks(run_dir: Path, since: float) -> list[str]:
    """What the other ranks have left since a time."""
    files = sorted((run_dir / "errors").glob("rank-*.txt"))
    return [f"{f.stem}:\n{f.read_text()}" for f in files if f.stat().st_mtime >= since - 1]


def leave_failed(run_dir: Path, error: BaseException) -> None:
    """End a rank other than 0 that failed, so that the sidecar says so.

    Its connections are closed first, which makes the others fail where they wait for it. Rank 0
    then records the failure; if it cannot, this rank does.

    Args:
        run_dir: The run's directory.
        error: What went wrong.
    """
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
    path = run_dir / "sidecar.json"
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        sidecar = read_sidecar(path)
        if sidecar is None or sidecar["status"] != "running":
            return
        time.sleep(0.1)
    sidecar = read_sidecar(path)
    if sidecar is not None:
        text = "".join(traceback.format_exception(error))
        atomic_write_json(path, {**sidecar, "status": "failed", "error": text})
