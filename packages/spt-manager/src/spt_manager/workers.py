"""Loader workers leave signals to their parent, which ends them when the run has stopped.

A scheduler signals every process of a job, and a terminal every process of its group. A worker
that died of it would make the parent fail in the middle of a batch instead of stopping after it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any


@dataclass(frozen=True)
class QuietWorker:
    """A ``worker_init_fn`` that also makes a worker outlive the first SIGTERM.

    The second one ends it, so that a parent can still terminate a worker that hangs.

    Attributes:
        then: The loader's own ``worker_init_fn``.
    """

    then: Callable[[int], Any] | None

    def __call__(self, worker_id: int) -> None:
        """Set the handlers of this worker."""
        for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, _outlive)
        if self.then is not None:
            self.then(worker_id)


def _outlive(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def quieten(loader: Any) -> None:
    """Let the workers of a loader leave signals to this process; those that run already stay."""
    if getattr(loader, "num_workers", 0) and not isinstance(loader.worker_init_fn, QuietWorker):
        loader.worker_init_fn = QuietWorker(loader.worker_init_fn)
