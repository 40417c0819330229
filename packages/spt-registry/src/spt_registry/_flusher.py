"""One thread per writer: it beats the heart and writes what waits."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

from loguru import logger

from spt_registry.liveness import touch_heartbeat

HEARTBEAT_S = 15.0


class Flusher:
    """Calls ``flush`` by time or when woken, until it is stopped or its writer is gone.

    Args:
        heartbeat: A file that is touched every 15 seconds.
        flush: A bound method; only a weak reference to its object is kept.
        every_s: Longest time between calls.
    """

    def __init__(self, heartbeat: Path, flush: Callable[[], None], every_s: float) -> None:
        self.heartbeat = heartbeat
        self.every_s = every_s
        self._flush = weakref.WeakMethod(flush)
        self._wake = threading.Event()
        self._stopped = False
        touch_heartbeat(heartbeat.parent)
        self._thread = threading.Thread(target=self._work, name="spt-registry", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Ask for a flush now."""
        if not self._wake.is_set():
            self._wake.set()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopped = True
        self._wake.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _work(self) -> None:
        beaten = time.monotonic()
        told = ""
        while not self._stopped:
            self._wake.wait(min(self.every_s, HEARTBEAT_S))
            self._wake.clear()
            if self._stopped:
                return
            try:
                if time.monotonic() - beaten >= HEARTBEAT_S:
                    os.utime(self.heartbeat)
                    beaten = time.monotonic()
                if not self._flush_once():
                    return
                told = ""
            except OSError as error:  # a full disk may have room again: the rows wait in memory
                if str(error) != told:
                    logger.warning(f"{self.heartbeat.parent} cannot be written now: {error}.")
                told = str(error)
                time.sleep(min(1.0, self.every_s))

    def _flush_once(self) -> bool:
        flush = self._flush()
        if flush is None:
            return False
        flush()
        return True
