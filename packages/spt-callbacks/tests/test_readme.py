"""The README's program runs."""

import re
from pathlib import Path


def test_the_readme_runs(capsys):
    text = (Path(__file__).parent.parent / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    namespace = {"__name__": "readme"}  # a later block goes on from the one before
    for block in blocks:
        exec(block, namespace)
    printed = capsys.readouterr().out
    for key in ("eval/probe_acc", "eval/knn_acc", "rankme", "lidar"):
        assert f"'{key}': " in printed
    assert "embedding/lr=" in printed  # the best head of the sweep
