"""The directory of a run, the same for all its ranks, and its lock."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as pl
import torch.distributed as dist
from lightning.pytorch.strategies import ModelParallelStrategy
from loguru import logger
from spt_registry.run import RunDir

from spt_manager.resume.rng import rng_state, set_rng_state

HANDOFF = "SPT_RUN_DIR_OF_RANK_0"

_held: set[Path] = set()


class RunInUseError(RuntimeError):
    """Another process, or another Manager of this one, is writing into the run's directory."""


@contextmanager
def shared_place(trainer: pl.Trainer, find: Callable[[], RunDir]) -> Iterator[RunDir]:
    """The directory that rank 0 finds, on every rank; locked by rank 0 while the block runs.

    Rank 0 tells the others: through the process group where the launcher has started all of
    them, and through an environment variable where Lightning starts them as children of rank 0.

    Args:
        trainer: Knows the ranks.
        find: Finds or makes the directory; called on rank 0 alone.

    Raises:
        RunInUseError: On all ranks, if the directory is in use.
        OSError: On all ranks, if there can be none.
    """
    handed = os.environ.pop(HANDOFF, None)
    if handed is not None:
        place = json.loads(handed)
        yield RunDir(Path(place["path"]), place["run_id"], place["resumed"])
        return
    together = trainer.world_size > 1 and _all_started(trainer)
    if not together and trainer.global_rank != 0:
        raise RuntimeError(
            f"This is rank {trainer.global_rank}, but no launcher has started the ranks together. "
            "Start all of them with torchrun or srun, or one process per node with `devices` alone."
        )
    if together:
        before = rng_state()
        meet(trainer)  # seeds again, which must not change the module
        set_rng_state(before)
    with _found(trainer, find, together) as place:
        if not together and trainer.world_size > 1:
            told = {"path": str(place.path), "run_id": place.run_id, "resumed": place.resumed}
            os.environ[HANDOFF] = json.dumps(told)
        try:
            yield place
        finally:
            os.environ.pop(HANDOFF, None)


@contextmanager
def _found(trainer: pl.Trainer, find: Callable[[], RunDir], together: bool) -> Iterator[RunDir]:
    place: RunDir | Exception | None = None
    lock: RunLock | None = None
    if trainer.global_rank == 0:
        try:
            place = find()
            lock = RunLock(place.path)
            lock.acquire()
        except (OSError, RuntimeError) as error:
            place = error
    if together:
        place = trainer.strategy.broadcast(place, src=0)
    if isinstance(place, Exception):
        raise place
    assert place is not None
    try:
        yield place
    finally:
        if lock is not None:
            lock.release()


def meet(trainer: pl.Trainer) -> None:
    """Make the process group of a trainer's ranks, which the trainer will find made."""
    strategy = trainer.strategy
    if isinstance(strategy, ModelParallelStrategy):  # its own way needs the module, not built yet
        unbuilt: Any = strategy
        unbuilt.accelerator.setup_device(unbuilt.root_device)
        unbuilt._setup_distributed()
    else:
        strategy.setup_environment()


def _all_started(trainer: pl.Trainer) -> bool:
    if dist.is_available() and dist.is_initialized():
        return True
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return environment is not None and bool(environment.creates_processes_externally)


class RunLock:
    """One writer per run directory: a lock of the operating system, gone with its process.

    Args:
        run_dir: The directory.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / ".lock"
        self._file: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            RunInUseError: If it is taken; the message says by whom.
        """
        key = self.path.absolute()
        if key in _held:
            raise RunInUseError(self._taken("another Manager of this process"))
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            owner = os.read(file, 200).decode(errors="replace").strip() or "another process"
            os.close(file)
            raise RunInUseError(self._taken(owner)) from error
        except OSError as error:
            logger.warning(f"{self.path} cannot be locked ({error}): start no second run in it.")
        os.ftruncate(file, 0)
        os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        self._file = file
        _held.add(key)

    def release(self) -> None:
        """Give it back."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
            _held.discard(self.path.absolute())

    def _taken(self, owner: str) -> str:
        return (
            f"The run directory {self.path.parent} is in use by {owner}. Wait for its end, or give "
            "this run another `run_id`."
        )
