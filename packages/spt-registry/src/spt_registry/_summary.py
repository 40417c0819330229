"""The last, least and greatest value of each metric: ``summary.json``."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spt_registry.run.files import atomic_write_json, to_json


class Summary:
    """Follows the rows that are written; continues what an earlier attempt left.

    Minimum and maximum are over finite values; the others are counted in ``non_finite``.

    Args:
        run_dir: The run's directory.
        sidecar: Its ``summary`` gets each metric's last value.
    """

    def __init__(self, run_dir: Path, sidecar: dict[str, Any]) -> None:
        self.path = run_dir / "summary.json"
        self.last: dict[str, Any] = sidecar["summary"]
        self.metrics: dict[str, dict[str, Any]] = {}
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))["metrics"]
            self.metrics = {str(name): dict(value) for name, value in found.items()}
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError, AttributeError):
            self.metrics = {}  # of no known form; counted anew from here

    def add(self, row: Mapping[str, Any]) -> None:
        """Take a row in."""
        for name, value in row.items():
            if name == "step":
                continue
            self.last[name] = to_json(value)
            entry = self.metrics.setdefault(
                name, {"last": None, "min": None, "max": None, "count": 0, "non_finite": 0}
            )
            entry["last"] = to_json(value)
            entry["count"] += 1
            if not math.isfinite(value):
                entry["non_finite"] = entry.get("non_finite", 0) + 1
                continue
            entry["min"] = value if entry["min"] is None else min(entry["min"], value)
            entry["max"] = value if entry["max"] is None else max(entry["max"], value)

    def write(self, run_id: str, step: int) -> None:
        """Put it on disk."""
        value = {"schema_version": 1, "run_id": run_id, "updated_at": time.time(), "step": step}
        atomic_write_json(self.path, {**value, "metrics": self.metrics})
