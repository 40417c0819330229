"""Batches made ready on a thread: loaded, stacked, and already on their devices."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any


class Prefetch:
    """Iterate over a producer that runs on a thread of its own, a few items ahead.

    Args:
        items: What to iterate over; its exceptions are raised where the items are taken.
        depth: Items that wait at most.

    Example:
        >>> with Prefetch(range(3)) as ahead:
        ...     list(ahead)
        [0, 1, 2]
    """

    def __init__(self, items: Iterable[Any], depth: int = 2) -> None:
        self._queue: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(items,), name="spt-jax-prefetch", daemon=True
        )

    def __enter__(self) -> Prefetch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        while self._thread.is_alive():  # a full queue would hold the thread back
            try:
                self._queue.get_nowait()
            except queue.Empty:
                self._thread.join(timeout=0.01)

    def _run(self, items: Iterable[Any]) -> None:
        try:
            for item in items:
                self._put("item", item)
                if self._stopped.is_set():
                    return
            self._put("end", None)
        except BaseException as error:  # any of them belongs to the loop that takes the items
            self._put("error", error)

    def _put(self, kind: str, value: Any) -> None:
        while not self._stopped.is_set():
            try:
                return self._queue.put((kind, value), timeout=0.05)
            except queue.Full:
                continue

    def __iter__(self) -> Iterator[Any]:
        while True:
            kind, value = self._queue.get()
            if kind == "item":
                yield value
            elif kind == "error":
                raise value
            else:
                return
