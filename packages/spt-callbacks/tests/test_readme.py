"""The README's program runs."""

import re
from pathlib import Path


def test_the_readme_runs(capsys):
    text = (Path(__file__).parent.parent / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, {"__name__": "readme"})
    assert capsys.readouterr().out
