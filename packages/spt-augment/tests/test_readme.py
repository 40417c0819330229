"""The README's program runs."""

import re
from pathlib import Path


def test_the_readme_runs(capsys):
    text = (Path(__file__).parent.parent / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    names = {"__name__": "readme"}  # one after the other, as a reader would
    for block in blocks:
        exec(block, names)
    assert capsys.readouterr().out
