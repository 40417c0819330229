"""`spt demo` for a few epochs: it trains, records, reports and draws."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from spt_registry import open_registry
from stable_pretraining.cli import main

pytestmark = pytest.mark.slow


def run_here(words):
    result = CliRunner().invoke(main, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def run_alone(words):
    """In a process of its own: what other tests ask of XLA would make it slow."""
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    result = subprocess.run(
        [str(Path(sys.executable).with_name("spt")), *words],
        env={**environment, "PYTHONUTF8": "1"},
        capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def run_demo(tmp_path, *options, epochs):
    words = ["demo", "--epochs", str(epochs), "--cache-dir", str(tmp_path), *options]
    output = (run_alone if options else run_here)(words)
    (record,) = open_registry(cache_dir=tmp_path).query()
    assert record.status == "completed"
    assert {"eval/knn_acc", "eval/probe_acc", "rankme"} <= set(record.summary)
    picture = record.run_dir / "demo.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert str(picture) in output.replace("\n", "")
    assert record.run_id in output
    found = re.findall(r"│ (.*?) +│ +\d+ +│ +([\d.]+) %", output)
    accuracy = {name: float(value) for name, value in found}
    assert accuracy["raw pixels"] == pytest.approx(80.1, abs=0.1)
    return accuracy


def test_the_demo_trains_an_encoder_that_beats_the_untrained_one(tmp_path):
    accuracy = run_demo(tmp_path, epochs=3)
    assert accuracy["trained encoder"] > accuracy["same encoder, untrained"] + 1


def test_the_demo_with_jax_beats_its_untrained_encoder_too(tmp_path):
    accuracy = run_demo(tmp_path, "--jax", epochs=1)
    assert accuracy["trained encoder"] > accuracy["same encoder, untrained"] + 1
