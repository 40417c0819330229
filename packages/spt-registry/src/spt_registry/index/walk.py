"""Walk the runs, listing only folders that can have changed."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from spt_registry.run.files import file_system_time

MAX_DEPTH = 8
SAMPLE = 64
SLOW_S = 150e-6
BLOCK = 4096
THREADS = 16
RACY_NS = 2_000_000_000
"""A folder that changed so shortly before it was listed may change again unseen."""

T = TypeVar("T")
R = TypeVar("R")


def in_parallel(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Map in order; on threads if the first calls show that the file system is a slow one.

    What counts is the median time a call waits without computing: a busy processor delays a few
    calls, a remote disk all of them.
    """
    iterator = iter(items)
    waits = []
    for item in itertools.islice(iterator, SAMPLE):
        started = time.perf_counter() - time.thread_time()
        result = function(item)
        waits.append(time.perf_counter() - time.thread_time() - started)
        yield result
    if len(waits) < SAMPLE or sorted(waits)[SAMPLE // 2] < SLOW_S:
        yield from map(function, iterator)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(THREADS) as pool:
        while block := list(itertools.islice(iterator, BLOCK)):
            yield from pool.map(function, block)


class Walk:
    """One walk below a cache directory; paths are relative to it.

    A folder without a sidecar is listed when its modification time has changed; what is known as
    a run costs one ``stat`` of its sidecar. Links to folders are not followed.

    Args:
        root: The cache directory.
        folders: Modification time and children, joined by slashes, of the folders of earlier walks.
        known_runs: Folders that were runs.

    Attributes:
        runs: Stamp (mtime_ns, size, inode) of each sidecar.
        fresh: Folders to remember: path, mtime_ns, children.
        forgotten: Remembered folders that are no more, or may change again unseen.
        unreadable: Folders that refused.
        calls: File-system calls made.
    """

    def __init__(
        self, root: Path, folders: Mapping[str, tuple[int, str]], known_runs: Iterable[str]
    ) -> None:
        self.root = str(root)
        self.folders = folders
        self.known_runs = frozenset(known_runs)
        self.runs: dict[str, tuple[int, int, int]] = {}
        self.fresh: list[tuple[str, int, str]] = []
        self.forgotten: list[str] = []
        self.unreadable: list[str] = []
        self.calls = 0
        self._now_ns: int | None = None

    def run(self, top: str) -> None:
        """Walk level by level."""
        level = [top]
        for _ in range(MAX_DEPTH):
            below: list[str] = []
            for calls, children in in_parallel(self._visit, level):
                self.calls += calls
                below += children
            level = below

    def _visit(self, path: str) -> tuple[int, list[str]]:
        """Note a run, or give the folders below; and the number of calls."""
        if path in self.known_runs:
            return (1, []) if self._note_run(path) else self._below(path, 1)
        if path in self.folders:
            return self._below(path, 0)
        return (1, []) if self._note_run(path) else self._below(path, 1)

    def _note_run(self, path: str) -> bool:
        """Whether there is no need to look further, as this is a run or refuses."""
        try:
            found = os.stat(f"{self.root}/{path}/sidecar.json")
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            self.unreadable.append(path)
            return True
        self.runs[path] = (found.st_mtime_ns, found.st_size, found.st_ino)
        return True

    def _below(self, path: str, calls: int) -> tuple[int, list[str]]:
        full = f"{self.root}/{path}"
        earlier = self.folders.get(path)
        try:
            found = os.stat(full)
            mtime = max(found.st_mtime_ns, found.st_ctime_ns)  # a restore sets the former back
            if earlier is not None and earlier[0] == mtime:
                return calls + 1, _join(path, earlier[1])
            with os.scandir(full) as listing:
                entries = list(listing)
        except (FileNotFoundError, NotADirectoryError):
            if earlier is not None:
                self.forgotten.append(path)
            return calls + 1, []
        except OSError:
            self.unreadable.append(path)
            return calls + 1, []
        if earlier is not None and any(entry.name == "sidecar.json" for entry in entries):
            self.forgotten.append(path)  # it has become a run
            self._note_run(path)
            return calls + 4, []
        names = [e.name for e in entries if e.is_dir(follow_symlinks=False) and _is_text(e.name)]
        self._remember(path, mtime, names)
        return calls + 3, [f"{path}/{name}" for name in names]

    def _remember(self, path: str, mtime: int, names: list[str]) -> None:
        if self._now_ns is None:  # by the clock that stamps folders; those of nodes differ
            self._now_ns = int(file_system_time(self.root) * 1e9)
        if self._now_ns - mtime > RACY_NS:
            self.fresh.append((path, mtime, "/".join(names)))
        elif path in self.folders:
            self.forgotten.append(path)

    def vanished(self, known: Iterable[str]) -> list[str]:
        """Runs that are gone, unless the folder that should hold them could not be looked into."""
        if not os.path.isdir(f"{self.root}/runs"):  # perhaps not mounted
            return []
        closed = tuple(f"{path}/" for path in self.unreadable)
        gone = (path for path in known if path not in self.runs)
        return sorted(path for path in gone if not (closed and f"{path}/".startswith(closed)))


def _join(path: str, children: str) -> list[str]:
    return [f"{path}/{name}" for name in children.split("/")] if children else []


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:  # bytes that no encoding explains; a run is never named so
        return False
    return True
