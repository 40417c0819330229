"""The README's program runs, and so do its commands."""

import re
import shlex
from pathlib import Path

from click.testing import CliRunner
from spt_registry.cli import cli


def test_the_readme_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parent.parent / "README.md").read_text()
    for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        exec(block, {"__name__": "readme"})
    assert capsys.readouterr().out.startswith("lr-0.1 0.1 0.03")
    commands = re.findall(r"^spt-registry (.*)$", text, re.MULTILINE)
    assert len(commands) == 7
    for command in commands:
        result = CliRunner().invoke(cli, shlex.split(command))
        assert result.exit_code == 0, result.output
        assert "lr-0.1" in result.output or "history" in command
