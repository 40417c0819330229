"""Stopping on a signal: the handler sets a flag, and the ranks agree between two batches."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Literal

from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from spt_manager.resume.ranks import Ranks

Reason = Literal["preempted", "interrupted"]

REASONS: tuple[Reason, ...] = ("interrupted", "preempted")
EXIT_CODES: dict[Reason, int] = {"preempted": 75, "interrupted": 130}
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Stopped(SystemExit):
    """A run was asked to stop, and did so with a checkpoint.

    A program that does not catch it ends with the exit code 75 (``EX_TEMPFAIL``: try again) when
    it was preempted, and 130 when it was interrupted from the keyboard. Ranks other than 0 end with
    0: launchers take any other code of a single rank for a crash and kill the rest.

    Args:
        reason: The run's status from now on.
        rank: Rank of this process.
    """

    def __init__(self, reason: Reason, rank: int = 0) -> None:
        super().__init__(EXIT_CODES[reason] if rank == 0 else 0)
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
        self._pid = os.getpid()

    @contextmanager
    def watch(self) -> Iterator[StopRequests]:
        """Install the handlers, and put the former ones back at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield self  # Python lets only the main thread handle signals
            return
        self.reason, self._pid = None, os.getpid()
        before = {each: signal.getsignal(each) for each in (*SIGNALS, signal.SIGINT)}
        for each in SIGNALS:
            signal.signal(each, self._preempted)
        signal.signal(signal.SIGINT, self._interrupted)
        try:
            with let_through():
                yield self
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def _preempted(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked child dies of the signal as if we were not here
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.reason = "preempted"

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        if self.reason is not None or os.getpid() != self._pid:
            raise KeyboardInterrupt
        self.reason = "interrupted"

    def agree(self, ranks: Ranks) -> Reason | None:
        """What any rank was asked; a preemption counts more than an interruption."""
        own = 0 if self.reason is None else REASONS.index(self.reason) + 1
        found = ranks.largest(own)
        return REASONS[found - 1] if found else None


@contextmanager
def let_through() -> Iterator[None]:
    """Deliver the signals that the program holds back by its signal mask.

    A program that blocks them before it imports torch loses no warning that comes meanwhile: it
    waits in the kernel, and is delivered here.
    """
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class OurSignals(_SignalConnector):
    """Leaves the signals to the Manager: Lightning's handlers save and talk inside the handler."""

    def register_signal_handlers(self) -> None:
        """Register nothing."""
        self.received_sigterm = False
