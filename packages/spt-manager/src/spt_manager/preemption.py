"""Stopping on a signal: the handler sets a flag, the ranks agree, the scheduler is told once."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Literal

from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from loguru import logger

from spt_manager.resume.ranks import Ranks

Reason = Literal["preempted", "interrupted"]

REASONS: tuple[Reason, ...] = ("interrupted", "preempted")
EXIT_CODES: dict[Reason, int] = {"preempted": 75, "interrupted": 130}
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Stopped(SystemExit):
    """A run was asked to stop, and did so with a checkpoint.

    A program that does not catch it ends with the exit code 75 (``EX_TEMPFAIL``: try again) when
    it was preempted, and 130 when it was interrupted from the keyboard.

    Args:
        reason: The run's status from now on.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(EXIT_CODES[reason])
        self.reason: Reason = reason

    def __str__(self) -> str:
        return f"The run was {self.reason} and can be continued."


class StopRequests:
    """Whether this process was asked to stop: by the scheduler, or once from the keyboard.

    While :meth:`watch` is open, SIGTERM, SIGUSR1 and SIGUSR2 ask for a stop, and so does the first
    SIGINT; a second one interrupts at once. The handlers set a flag and do nothing else.
    """

    def __init__(self) -> None:
        self.reason: Reason | None = None

    @contextmanager
    def watch(self) -> Iterator[StopRequests]:
        """Install the handlers, and put the former ones back at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield self  # Python lets only the main thread handle signals
            return
        self.reason = None
        before = {each: signal.getsignal(each) for each in (*SIGNALS, signal.SIGINT)}
        for each in SIGNALS:
            signal.signal(each, self._preempted)
        signal.signal(signal.SIGINT, self._interrupted)
        try:
            yield self
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def _preempted(self, number: int, frame: FrameType | None) -> None:
        self.reason = "preempted"

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        if self.reason is not None:
            raise KeyboardInterrupt
        self.reason = "interrupted"

    def agree(self, ranks: Ranks) -> Reason | None:
        """What any rank was asked; a preemption counts more than an interruption."""
        own = 0 if self.reason is None else REASONS.index(self.reason) + 1
        found = ranks.largest(own)
        return REASONS[found - 1] if found else None


class OurSignals(_SignalConnector):
    """Leaves the signals to the Manager: Lightning's handlers save and talk inside the handler."""

    def register_signal_handlers(self) -> None:
        """Register nothing."""
        self.received_sigterm = False


def requeue(environ: Mapping[str, str] | None = None) -> bool:
    """Ask SLURM to start this job again; ``False`` if there is no job or it was refused."""
    environ = os.environ if environ is None else environ
    job = environ.get("SLURM_JOB_ID")
    if not job:
        return False
    task, array = environ.get("SLURM_ARRAY_TASK_ID"), environ.get("SLURM_ARRAY_JOB_ID")
    name = f"{array}_{task}" if array and task else job
    try:
        found = subprocess.run(
            ["scontrol", "requeue", name], capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.error(f"`scontrol requeue {name}` failed: {error}. Submit the job again.")
        return False
    if found.returncode != 0:
        logger.error(f"`scontrol requeue {name}` failed: {found.stderr.strip()}.")
        return False
    logger.info(f"SLURM was asked to start job {name} again.")
    return True
