"""What the tests that cross packages share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def run_python():
    """Run a program in a fresh interpreter and return what it printed."""

    def run(program: str, *, python: str = sys.executable, cwd: Path | None = None, **env: str):
        result = subprocess.run(
            [python, "-c", program],
            capture_output=True,
            text=True,
            cwd=cwd,
            env={**os.environ, **env},
            timeout=300,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return run
