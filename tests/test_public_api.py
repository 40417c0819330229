"""The public names and their signatures are those that are written down."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_a_change_of_the_api_is_a_line_in_the_diff(run_python):
    found = run_python(
        f"import runpy; runpy.run_path({str(ROOT / 'tools' / 'public_api.py')!r}, run_name='__main__')"
    )
    written = (ROOT / "tests" / "public_api.txt").read_text(encoding="utf-8")
    names = [line.split("(")[0].split(":")[0] for line in found.splitlines()]
    assert len(names) == len(set(names)) > 300
    assert names == [line.split("(")[0].split(":")[0] for line in written.splitlines()], (
        "run `python tools/public_api.py > tests/public_api.txt` and look at the diff"
    )
    if sys.version_info[:2] == (3, 11):  # how a default is shown differs between versions
        assert found.splitlines() == written.splitlines()
