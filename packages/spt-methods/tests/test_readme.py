"""The README's programs run, and its table is that of the code."""

import re
from pathlib import Path

from spt_methods.catalogue import table

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_readme_runs(capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 3
    scope = {"__name__": "readme"}
    for block in blocks:
        exec(block, scope)
    printed = capsys.readouterr().out
    assert "torch.Size([2, 16, 192])" in printed


def test_the_table_of_methods_is_generated():
    found = README.split("<!-- table: methods -->\n")[1].split("\n<!-- end -->")[0]
    assert found == table(), "print(spt_methods.catalogue.table()) into the README"
