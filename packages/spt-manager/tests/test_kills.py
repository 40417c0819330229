"""A dozen random kills; ``hatch run soak`` makes a hundred."""

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from forked import Forked


@pytest.mark.slow
def test_killed_at_random_a_run_comes_to_the_same(tmp_path):
    done = Forked(tmp_path / "log", "kills", "kill", 12, 1)
    assert done.end() == 0, done.output()[-5000:]
    assert int(re.match(r"(\d+) kills", done.output())[1]) >= 12
