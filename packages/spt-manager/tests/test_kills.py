"""A dozen random kills; ``hatch run soak`` makes a hundred."""

import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_killed_at_random_a_run_comes_to_the_same():
    program = Path(__file__).with_name("kills.py")
    done = subprocess.run(
        [sys.executable, str(program), "--kills", "12", "--seed", "1"],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    assert int(re.match(r"(\d+) kills", done.stdout)[1]) >= 12
