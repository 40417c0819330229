"""`spt demo` for a few epochs: it trains, records, reports and draws."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from spt_registry import open_registry

pytestmark = pytest.mark.slow


def run_demo(tmp_path, *options, epochs=1):
    """In a process of its own, as a user does: what other tests ask of XLA makes it slow."""
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    result = subprocess.run(
        [
            str(Path(sys.executable).with_name("spt")),
            *("demo", "--epochs", str(epochs), "--cache-dir", str(tmp_path), *options),
        ],
        env={**environment, "PYTHONUTF8": "1"},
        capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    (record,) = open_registry(cache_dir=tmp_path).query()
    assert record.status == "completed"
    assert {"eval/knn_acc", "eval/probe_acc", "rankme"} <= set(record.summary)
    picture = record.run_dir / "demo.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert str(picture) in result.stdout.replace("\n", "")
    assert record.run_id in result.stdout
    found = re.findall(r"│ (.*?) +│ +\d+ +│ +([\d.]+) %", result.stdout)
    accuracy = {name: float(value) for name, value in found}
    assert accuracy["raw pixels"] == pytest.approx(80.1, abs=0.1)
    return accuracy


def test_the_demo_trains_an_encoder_that_beats_the_untrained_one(tmp_path):
    accuracy = run_demo(tmp_path, epochs=2)
    assert accuracy["trained encoder"] > accuracy["same encoder, untrained"] + 1


def test_the_demo_with_jax_beats_its_untrained_encoder_too(tmp_path):
    accuracy = run_demo(tmp_path, "--jax", epochs=1)
    assert accuracy["trained encoder"] > accuracy["same encoder, untrained"] + 1
