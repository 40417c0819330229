"""The README's program runs."""

import re
from pathlib import Path


def test_the_readme_runs(capsys):
    text = (Path(__file__).parent.parent / "README.md").read_text()
    for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        exec(block, {})
    assert "'projection': (8, 128)" in capsys.readouterr().out
