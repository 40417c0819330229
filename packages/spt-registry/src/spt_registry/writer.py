"""What a training process writes about its run, whatever its framework."""

from __future__ import annotations

import atexit
import numbers
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loguru import logger

from spt_registry import _media
from spt_registry._flusher import Flusher
from spt_registry._metrics_file import MetricsFile
from spt_registry._owner import new_owner, other_writer
from spt_registry._summary import Summary
from spt_registry.run.files import flatten, sweep, to_json
from spt_registry.run.identity import is_global_zero
from spt_registry.run.masking import masked
from spt_registry.sidecar import ALIASES as ALIASES
from spt_registry.sidecar import TERMINAL as TERMINAL
from spt_registry.sidecar import make_sidecar, write_hparams, write_sidecar
from spt_registry.sidecar import read_sidecar as read_sidecar

REWRITTEN = ("sidecar.json", "summary.json", "hparams.yaml", "metrics.csv")


class RunWriter:
    """Record a run as plain files: sidecar, heartbeat, metrics, hyper-parameters and media.

    ``sidecar.json`` is there from the start with the status ``running`` and is always whole.
    Rows of ``metrics.csv`` wait in memory for at most ``flush_every_s`` seconds or about
    ``flush_every_rows`` rows; a thread writes them, so a training step pays microseconds. Opening a
    directory that has a sidecar continues it: creation time, tags, notes and summary stay.

    Ranks other than 0 write nothing, and neither do forked children.

    Args:
        run_dir: The run's directory; made if missing.
        run_id: Its id; the directory's name by default.
        hparams: Hyper-parameters, nested or flat; strings under names such as ``api_key``,
            ``password`` or ``hf_token`` are masked.
        config: The configuration the run was made from, kept nested; masked likewise.
        tags: Labels to group runs by.
        notes: Free text.
        flush_every_s: Longest time a row waits.
        flush_every_rows: Most rows that wait before the thread is woken.
        enabled: Whether to write at all; by default only on rank 0 of the launcher.

    Raises:
        RuntimeError: If another process writes this run now.

    Example:
        >>> import json, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> with RunWriter(folder, "first", hparams={"lr": 0.1}) as run:
        ...     run.log_metrics({"loss": 0.5}, step=0)
        >>> json.loads((Path(folder) / "sidecar.json").read_text())["status"]
        'completed'
    """

    def __init__(
        self,
        run_dir: str | Path,
        run_id: str | None = None,
        *,
        hparams: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        tags: Sequence[str] = (),
        notes: str | None = None,
        flush_every_s: float = 5.0,
        flush_every_rows: int = 200,
        enabled: bool | None = None,
    ) -> None:
        self.closed = True  # until all is open
        if isinstance(tags, str):
            raise TypeError(f"`tags` must be a sequence of strings, got the string {tags!r}.")
        self.run_dir = Path(run_dir)
        self.run_id = run_id or self.run_dir.name
        self.flush_every_rows = flush_every_rows
        self._pid = os.getpid() if (is_global_zero() if enabled is None else enabled) else -1
        self._lock = threading.RLock()
        self._rows: deque[dict[str, Any]] = deque()
        self._last_step = -1
        self._stolen: str | None = None
        if not self._mine():
            return
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self._sidecar = self._opened(tags, notes)
        sweep(self.run_dir, REWRITTEN)
        if config is not None:
            self._sidecar["config"] = masked(to_json(config))
        self._sidecar["hparams"].update(masked(to_json(flatten(hparams or {}))))
        self._summary = Summary(self.run_dir, self._sidecar)
        self._metrics = MetricsFile(self.run_dir / "metrics.csv")
        write_hparams(self.run_dir, self._sidecar["hparams"])
        self._write_sidecar()
        self._flusher = Flusher(self.run_dir / "heartbeat", self._background, flush_every_s)
        self.closed = False
        self._at_exit = _save_at_exit(self)

    def _mine(self) -> bool:
        return os.getpid() == self._pid

    def _opened(self, tags: Sequence[str], notes: str | None) -> dict[str, Any]:
        """The sidecar of this attempt, continuing an earlier one."""
        old = read_sidecar(self.run_dir / "sidecar.json") or {}
        writer = other_writer(self.run_dir, old)
        if writer is not None:
            raise RuntimeError(
                f"{self.run_dir} is being written by {writer}. Give this run another directory, "
                "or end that process first."
            )
        now = time.time()
        owner = new_owner(self)
        attempt = {"started_at": now, **{key: owner[key] for key in ("host", "pid", "job")}}
        return make_sidecar(
            self.run_id,
            self.run_dir,
            created_at=old.get("created_at", now),
            tags=list(dict.fromkeys([*old.get("tags", []), *map(str, tags)])),
            notes=notes if notes is not None else old.get("notes", ""),
            hparams=old.get("hparams", {}),
            config=old.get("config", {}),
            summary=old.get("summary", {}),
            checkpoint_path=old.get("checkpoint_path"),
            last_checkpoint_path=old.get("last_checkpoint_path"),
            owner=owner,
            attempts=[*old.get("attempts", []), attempt],
        )

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        """Add hyper-parameters; nested ones get dotted names, and secrets are masked."""
        if self._mine() and params:
            with self._lock:
                self._sidecar["hparams"].update(masked(to_json(flatten(params))))
                write_hparams(self.run_dir, self._sidecar["hparams"])
                self._write_sidecar()

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add one row of numbers; what is no number is refused.

        Args:
            metrics: Numbers by name; one-element arrays and tensors count as numbers.
            step: Training step; one more than the last by default.

        Raises:
            TypeError: If a value is no number.
            RuntimeError: If another process has taken the run over.
        """
        if not self._mine():
            return
        if self._stolen:
            raise RuntimeError(self._stolen)
        row: dict[str, Any] = {"step": self._last_step + 1 if step is None else int(step)}
        for name, value in metrics.items():
            if name != "step":
                number = value if type(value) is float else as_number(name, value)
                row[name if type(name) is str else str(name)] = number
        self._last_step = row["step"]
        self._rows.append(row)
        if len(self._rows) >= self.flush_every_rows and not self.closed:
            self._flusher.wake()
        elif self.closed:
            self.save()  # a row after the end is kept, too

    def log_image(
        self, key: str, images: Any, step: int | None = None, caption: str | None = None, **_: Any
    ) -> None:
        """Keep images: paths, PNG bytes, PIL images, arrays or tensors; one or a list.

        Arrays are ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)``: uint8, or floats in [0, 1].

        Raises:
            TypeError: If an item is of another kind.
            ValueError: If an array has no image's shape.
        """
        self._log_media("image", key, images, step, caption=caption)

    def log_video(
        self,
        key: str,
        videos: Any,
        step: int | None = None,
        caption: str | None = None,
        fps: float | None = None,
        **_: Any,
    ) -> None:
        """Keep videos: paths (mp4, webm, gif) or the bytes of an mp4; one or a list."""
        self._log_media("video", key, videos, step, caption=caption, fps=fps)

    def _log_media(self, kind: str, key: str, items: Any, step: int | None, **extra: Any) -> None:
        if not self._mine():
            return
        listed = list(items) if isinstance(items, (list, tuple)) else [items]
        step = max(self._last_step, 0) if step is None else int(step)
        with self._lock:
            attempt = len(self._sidecar["attempts"])
            _media.write_media(self.run_dir, kind, key, listed, step, attempt, **extra)

    def log_checkpoint(self, best: str | None = None, last: str | None = None) -> None:
        """Record where checkpoints are: the best by its own measure, and the last."""
        if not self._mine():
            return
        with self._lock:
            for key, path in (("checkpoint_path", best), ("last_checkpoint_path", last)):
                if path:
                    self._sidecar[key] = str(path)
            if not self._sidecar["checkpoint_path"]:
                self._sidecar["checkpoint_path"] = self._sidecar["last_checkpoint_path"]
            self._write_sidecar()

    def add_tags(self, *tags: str) -> None:
        """Add labels."""
        if not self._mine():
            return
        with self._lock:
            self._sidecar["tags"] = list(dict.fromkeys([*self._sidecar["tags"], *map(str, tags)]))
            self._write_sidecar()

    def save(self) -> None:
        """Write what is waiting, now and on this thread.

        Raises:
            OSError: If that fails; the rows go on waiting.
        """
        if self._mine():
            with self._lock:
                self._write_rows()
                self._write_sidecar()

    def finalize(self, status: str = "completed", error: str | None = None) -> None:
        """End the run: ``completed``, ``failed``, ``preempted`` or ``interrupted``.

        Args:
            status: How it ended; Lightning's ``success`` is ``completed``.
            error: What went wrong, such as a traceback.

        Raises:
            ValueError: If the status is unknown.
        """
        status = ALIASES.get(status, status)
        if status not in TERMINAL:
            raise ValueError(f"`status` must be one of {TERMINAL}, got {status!r}.")
        if not self._mine() or self._stolen:
            return
        self._flusher.stop()
        with self._lock:
            now = time.time()
            self._sidecar.update(status=status, ended_at=now, error=error)
            self._sidecar["attempts"][-1].update(ended_at=now, status=status)
            self._write_rows()
            if self._metrics.late:
                self._metrics.fold()
            self._summary.write(self.run_id, self._last_step)
            self._write_sidecar()
            self.closed = True
            atexit.unregister(self._at_exit)

    def _background(self) -> None:
        """Write what is waiting, if anything is; the thread calls this."""
        with self._lock:
            if self._rows and not self.closed and self._mine():
                self._write_rows()
                self._write_sidecar()

    def _write_rows(self) -> None:
        rows = [self._rows[i] for i in range(len(self._rows))]
        if not rows:
            return
        if self._taken_over():
            self._rows.clear()
            return
        names = {name: _one_line(name) for row in rows for name in row}
        if any(name != clean for name, clean in names.items()):
            rows = [{names[name]: value for name, value in row.items()} for row in rows]
        self._metrics.append(rows)
        for row in rows:
            self._rows.popleft()
            self._summary.add(row)

    def _taken_over(self) -> bool:
        """Whether another writer has replaced this one's token on disk."""
        found = read_sidecar(self.run_dir / "sidecar.json")
        owner = (found or {}).get("owner")
        if isinstance(owner, dict) and owner.get("token") != self._sidecar["owner"]["token"]:
            self._stolen = (
                f"{self.run_dir} was taken over by process {owner.get('pid')} on "
                f"{owner.get('host')}; this process stops writing to it."
            )
            logger.error(self._stolen)
        return self._stolen is not None

    def _write_sidecar(self) -> None:
        if self._stolen is None:
            self._sidecar["updated_at"] = time.time()
            write_sidecar(self.run_dir / "sidecar.json", self._sidecar)

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None:
            self.finalize("completed")
        else:
            interrupted = issubclass(kind, KeyboardInterrupt)
            self.finalize("interrupted" if interrupted else "failed", error=repr(error))

    def __del__(self) -> None:
        if not self.closed:
            atexit.unregister(self._at_exit)
            self._leave()

    def _leave(self) -> None:
        """Write what waits and end the thread; nobody has said how the run ended."""
        if not self.closed and self._mine():
            self._flusher.stop()
            self.closed = True  # the interpreter is gone when ``__del__`` comes after its exit
            if self.run_dir.is_dir():
                self.save()


def _save_at_exit(writer: RunWriter) -> Any:
    """Write waiting rows when the program ends without :meth:`RunWriter.finalize`."""
    reference = weakref.ref(writer)

    def leave() -> None:
        writer = reference()
        if writer is not None:
            writer._leave()

    atexit.register(leave)
    return leave


def _one_line(name: str) -> str:
    """A column name that keeps the header on one line and is valid UTF-8."""
    return " ".join(name.splitlines()).encode("utf-8", "backslashreplace").decode()


def as_number(name: object, value: Any) -> float | int:
    """A Python number.

    Raises:
        TypeError: If the value is none.
    """
    if isinstance(value, bool):
        return float(value)
    if type(value) in (int, float):
        return value
    shape = getattr(value, "shape", None)
    if shape is not None and hasattr(value, "item"):
        if any(size != 1 for size in shape):
            raise TypeError(
                f"The metric {name!r} must be a number, got a {type(value).__name__} of shape "
                f"{tuple(shape)}; log its mean or its elements."
            )
        return as_number(name, value.item())
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    raise TypeError(f"The metric {name!r} must be a number, got {type(value).__name__}.")
