"""What a training process writes about its run, whatever its framework."""

from __future__ import annotations

import csv
import io
import json
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spt_registry.run.files import (
    atomic_file,
    atomic_write_json,
    atomic_write_text,
    flatten,
    to_json,
)

SCHEMA_VERSION = 1
TERMINAL = ("completed", "failed", "preempted", "interrupted")
HEARTBEAT_S = 15.0


class RunWriter:
    """Record a run as plain files: sidecar, heartbeat, metrics and hyper-parameters.

    ``sidecar.json`` is there from the start with the status ``running`` and is always whole.
    Rows of ``metrics.csv`` are kept for at most ``flush_every_s`` seconds or
    ``flush_every_rows`` rows before they are written. Opening a directory that has a sidecar
    continues it: creation time, tags, notes and summary stay.

    Args:
        run_dir: The run's directory; made if missing.
        run_id: Its id; the directory's name by default.
        hparams: Hyper-parameters, nested or flat.
        config: The configuration the run was made from, kept nested.
        tags: Labels to group runs by.
        notes: Free text.
        flush_every_s: Longest time a row waits.
        flush_every_rows: Most rows that wait.

    Example:
        >>> import tempfile
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
    ) -> None:
        if isinstance(tags, str):
            raise TypeError(f"`tags` must be a sequence of strings, got the string {tags!r}.")
        self.run_dir = Path(run_dir)
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self.run_id = run_id or self.run_dir.name
        self.flush_every_s = flush_every_s
        self.flush_every_rows = flush_every_rows
        self._lock = threading.RLock()
        self._metrics = MetricsFile(self.run_dir / "metrics.csv")
        self._flushed_at = time.monotonic()
        self._last_step = -1
        self.closed = False
        self._sidecar = self._opened(tags, notes)
        self._heart = _Heart(self.run_dir / "heartbeat")
        if config is not None:
            self._sidecar["config"] = to_json(config)
        self.log_hyperparams(hparams or {})

    def _opened(self, tags: Sequence[str], notes: str | None) -> dict[str, Any]:
        """The sidecar of this attempt, continuing an earlier one."""
        old = read_sidecar(self.run_dir / "sidecar.json") or {}
        now = time.time()
        attempt = {"started_at": now, "host": socket.gethostname(), "pid": os.getpid()}
        return {
            "schema_version": SCHEMA_VERSION,
            "run_id": self.run_id,
            "run_dir": str(self.run_dir.absolute()),
            "status": "running",
            "created_at": old.get("created_at", now),
            "ended_at": None,
            "updated_at": now,
            "tags": list(dict.fromkeys([*old.get("tags", []), *map(str, tags)])),
            "notes": notes if notes is not None else old.get("notes", ""),
            "hparams": old.get("hparams", {}),
            "config": old.get("config", {}),
            "summary": old.get("summary", {}),
            "checkpoint_path": old.get("checkpoint_path"),
            "last_checkpoint_path": old.get("last_checkpoint_path"),
            "error": None,
            "attempts": [*old.get("attempts", []), attempt],
        }

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        """Add hyper-parameters; nested ones get dotted names."""
        with self._lock:
            self._sidecar["hparams"].update(to_json(flatten(params)))
            if self._sidecar["hparams"]:
                import yaml

                text = yaml.safe_dump(self._sidecar["hparams"], sort_keys=True)
                atomic_write_text(self.run_dir / "hparams.yaml", text)
            self._write_sidecar()

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add one row of numbers; what is no number is refused.

        Args:
            metrics: Numbers by name; zero-dimensional arrays and tensors count as numbers.
            step: Training step; one more than the last by default.

        Raises:
            TypeError: If a value is no number.
        """
        row = {str(name): as_number(name, value) for name, value in metrics.items()}
        with self._lock:
            self._last_step = self._last_step + 1 if step is None else int(step)
            self._metrics.add({"step": self._last_step, **row})
            self._sidecar["summary"].update(to_json(row))
            waited = time.monotonic() - self._flushed_at
            if waited >= self.flush_every_s or self._metrics.pending >= self.flush_every_rows:
                self.save()

    def log_checkpoint(self, best: str | None = None, last: str | None = None) -> None:
        """Record where checkpoints are: the best by its own measure, and the last."""
        with self._lock:
            for key, path in (("checkpoint_path", best), ("last_checkpoint_path", last)):
                if path:
                    self._sidecar[key] = str(path)
            if not self._sidecar["checkpoint_path"]:
                self._sidecar["checkpoint_path"] = self._sidecar["last_checkpoint_path"]
            self._write_sidecar()

    def add_tags(self, *tags: str) -> None:
        """Add labels."""
        with self._lock:
            self._sidecar["tags"] = list(dict.fromkeys([*self._sidecar["tags"], *tags]))
            self._write_sidecar()

    def save(self) -> None:
        """Write what is waiting."""
        with self._lock:
            self._metrics.flush()
            self._write_sidecar()
            self._flushed_at = time.monotonic()

    def finalize(self, status: str = "completed", error: str | None = None) -> None:
        """End the run: ``completed``, ``failed``, ``preempted`` or ``interrupted``.

        Args:
            status: How it ended; Lightning's ``success`` is ``completed``.
            error: What went wrong, such as a traceback.

        Raises:
            ValueError: If the status is unknown.
        """
        status = {"success": "completed", "finished": "completed"}.get(status, status)
        if status not in TERMINAL:
            raise ValueError(f"`status` must be one of {TERMINAL}, got {status!r}.")
        with self._lock:
            self._heart.stop()
            now = time.time()
            self._sidecar.update(status=status, ended_at=now, error=error)
            self._sidecar["attempts"][-1].update(ended_at=now, status=status)
            self.save()
            self.closed = True

    def _write_sidecar(self) -> None:
        self._sidecar["updated_at"] = time.time()
        atomic_write_json(self.run_dir / "sidecar.json", self._sidecar)

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None:
            self.finalize("completed")
        else:
            interrupted = issubclass(kind, KeyboardInterrupt)
            self.finalize("interrupted" if interrupted else "failed", error=repr(error))


def as_number(name: str, value: Any) -> float | int:
    """A Python number.

    Raises:
        TypeError: If the value is none.
    """
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, bool):
        return float(value)
    if not isinstance(value, (int, float)):
        raise TypeError(f"The metric {name!r} must be a number, got {type(value).__name__}.")
    return value


class MetricsFile:
    """``metrics.csv``: one row per call, absent values empty.

    Rows are appended. When a name appears that the header lacks, the file is written anew
    beside the old one and takes its place; names that come together cost one such pass.
    An unterminated last line, left by a crash, is dropped when the file is opened.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self.columns: list[str] = []
        if path.exists():
            self._repair()
            with path.open(newline="", encoding="utf-8") as file:
                self.columns = next(csv.reader(file), [])

    @property
    def pending(self) -> int:
        """Rows that are not written yet."""
        return len(self.rows)

    def _repair(self) -> None:
        content = self.path.read_bytes()
        if content and not content.endswith(b"\n"):
            with atomic_file(self.path) as file:
                file.write(content[: content.rfind(b"\n") + 1])

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row until the next flush."""
        self.rows.append(row)

    def flush(self) -> None:
        """Append the waiting rows."""
        if not self.rows:
            return
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        new = [name for name in names if name not in self.columns]
        if new:
            self._widen(new)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            file.write(_csv_lines(self.columns, self.rows))
            file.flush()
            os.fsync(file.fileno())
        self.rows = []

    def _widen(self, new: list[str]) -> None:
        old = []
        if self.columns:
            with self.path.open(newline="", encoding="utf-8") as file:
                old = list(csv.DictReader(file))
        self.columns += new
        header = _csv_lines(self.columns, [dict(zip(self.columns, self.columns, strict=True))])
        with atomic_file(self.path, "w") as file:
            file.write(header + _csv_lines(self.columns, old))


def _csv_lines(columns: list[str], rows: Sequence[Mapping[str, Any]]) -> str:
    buffer = io.StringIO()
    csv.DictWriter(buffer, columns, restval="", lineterminator="\n").writerows(rows)
    return buffer.getvalue()


class _Heart:
    """Touches a file at a fixed interval, on a thread of its own, as long as the process lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.touch()
        os.utime(self.path)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="spt-heartbeat", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._stopped.wait(HEARTBEAT_S):
            try:
                os.utime(self.path)
            except FileNotFoundError:  # the run's directory was removed: nothing left to report
                return

    def stop(self) -> None:
        """Stop beating."""
        self._stopped.set()
        self._thread.join()


def read_sidecar(path: Path) -> dict[str, Any] | None:
    """A sidecar, or ``None`` if there is none or it is no JSON object with a ``run_id``."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) and "run_id" in value else None
