"""Notice a preemption at once, act on it at a boundary of the loop.

SLURM sends SIGTERM, or earlier the signal of ``sbatch --signal=USR1@90``. The handler sets a flag
and nothing else: no file, no log line, no collective happens inside it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

DEFAULT_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class PreemptionGuard:
    """Turns signals into a flag while a block runs.

    A handler of the program that was there before is called after the flag is set, and is
    restored at the end. Processes forked inside the block keep the default action, so loader
    workers die of SIGTERM as they did.

    Args:
        signals: What to watch; SIGTERM and SIGUSR1 by default.

    Example:
        >>> with PreemptionGuard() as guard:
        ...     signal.raise_signal(signal.SIGTERM)
        ...     guard.requested, guard.signal_name
        (True, 'SIGTERM')
    """

    def __init__(self, signals: Sequence[int] = DEFAULT_SIGNALS) -> None:
        self.signals = tuple(signal.Signals(number) for number in signals)
        self.received: signal.Signals | None = None
        self._pid = os.getpid()
        self._earlier: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self.received is not None

    @property
    def signal_name(self) -> str | None:
        """The first signal's name, such as ``SIGTERM``."""
        return None if self.received is None else self.received.name

    def __enter__(self) -> PreemptionGuard:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("PreemptionGuard must be entered in the main thread of the program.")
        self._pid = os.getpid()
        for number in self.signals:
            self._earlier[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, earlier in self._earlier.items():
            if signal.getsignal(number) == self._handle:  # another handler on top stays
                signal.signal(number, signal.SIG_DFL if earlier is None else earlier)
        self._earlier.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if self.received is None:
            self.received = signal.Signals(number)
        earlier = self._earlier.get(number)
        if callable(earlier):
            earlier(number, frame)


_requeued: set[str] = set()


def requeue(environ: Mapping[str, str] | None = None, *, timeout_s: float = 60.0) -> str | None:
    """Ask SLURM to run this job again; a process asks once for each job.

    A job that SLURM is ending already is left alone, or ``scancel`` would start it again; one that
    has reached its time limit is asked for.

    Args:
        environ: Environment variables; the process's own by default.
        timeout_s: Longest time to wait for ``scontrol``.

    Returns:
        ``None`` if SLURM agreed or was asked before, else the reason in words.

    Example:
        >>> requeue({})
        'This is no SLURM job (SLURM_JOB_ID is not set); start the run again by hand.'
    """
    environ = os.environ if environ is None else environ
    name = slurm_job(environ)
    if name is None:
        return "This is no SLURM job (SLURM_JOB_ID is not set); start the run again by hand."
    if name in _requeued:
        return None
    if is_ended_by_slurm(_scontrol(["-o", "show", "job", name], environ, timeout_s)[1]):
        return f"SLURM is ending job {name} already (scancel or scontrol requeue): left alone."
    failed, said = _scontrol(["requeue", name], environ, timeout_s)
    if failed:
        return f"`scontrol requeue {name}` {said}"
    _requeued.add(name)
    return None


def _scontrol(
    arguments: list[str], environ: Mapping[str, str], timeout_s: float
) -> tuple[bool, str]:
    """Whether it failed, and what it said."""
    command = ["scontrol", *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, env=dict(environ)
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return True, f"could not run ({error}); submit the job again."
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        return True, f"failed with exit code {done.returncode}: {said}"
    return False, done.stdout


def is_ended_by_slurm(shown: str) -> bool:
    """Whether ``scontrol show job`` tells of an end that is not the time limit's.

    Example:
        >>> is_ended_by_slurm("JobState=COMPLETING RunTime=00:01:00 TimeLimit=1-00:00:00")
        True
        >>> is_ended_by_slurm("JobState=COMPLETING RunTime=1-00:00:05 TimeLimit=1-00:00:00")
        False
        >>> is_ended_by_slurm("JobState=RUNNING RunTime=00:01:00 TimeLimit=UNLIMITED")
        False
    """
    fields = dict(field.split("=", 1) for field in shown.split() if "=" in field)
    if fields.get("JobState", "RUNNING") in ("RUNNING", "SUSPENDED", "TIMEOUT"):
        return False
    spent, limit = (_seconds(fields.get(name, "")) for name in ("RunTime", "TimeLimit"))
    return spent is None or limit is None or spent < limit


def _seconds(text: str) -> int | None:
    """Seconds of ``[days-]hours:minutes:seconds``; ``None`` for other words."""
    days, _, clock = text.rpartition("-")
    parts = clock.split(":")
    if len(parts) != 3 or not all(part.isdigit() for part in (days or "0", *parts)):
        return None
    hours, minutes, seconds = map(int, parts)
    return int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds


def slurm_job(environ: Mapping[str, str]) -> str | None:
    """The name ``scontrol`` knows this job by: ``JOBID``, or ``ARRAYJOB_TASK`` in an array."""
    array, task = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    if array and task:
        return f"{array}_{task}"
    return environ.get("SLURM_JOB_ID")
