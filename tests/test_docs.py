"""The pages of the docs: their programs run, their commands exist, the navigation is whole."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "reference" not in page.parts)

# A block is run, unless the line before it says why not: <!-- not run: reason -->
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^>]+) -->\n+)?^```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^```",
    re.MULTILINE | re.DOTALL,
)


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of one language that are to be run."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [m["code"] for m in found if m["language"] == language and not m["reason"]]


def name_of(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_the_programs_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "__main__"}
    for number, code in enumerate(blocks(page, "python")):
        exec(compile(code, f"{name_of(page)}[{number}]", "exec"), names)


def spt_commands() -> list[tuple[str, str]]:
    """Lines of the pages that begin with ``spt`` or ``spt-registry``."""
    found = []
    for page in PAGES:
        for code in blocks(page, "bash"):
            lines = code.replace("\\\n", " ").splitlines()
            found += [(name_of(page), line) for line in lines if re.match(r"spt[ -]", line)]
    return found


@pytest.mark.parametrize(("page", "line"), spt_commands())
def test_a_command_on_a_page_is_one_that_exists(page, line):
    import click
    from stable_pretraining.cli import main

    words = shlex.split(line, comments=True)
    words = ["registry", *words[1:]] if words[0] == "spt-registry" else words[1:]
    command, context = main, click.Context(main, info_name="spt")
    while isinstance(command, click.Group) and words:
        name, command, words = command.resolve_command(context, words)
        context = click.Context(command, info_name=name, parent=context)
    known = {option for parameter in command.params for option in parameter.opts}
    used = {word.split("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)}
    assert used <= known | {"--help", "-h"}, f"{page}: `{line}` uses options of none of ours"


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"[\w/-]+\.md", text))
    assert {name_of(page) for page in DOCS.rglob("*.md")} == listed


def test_yaml_on_the_pages_can_be_read():
    for page in PAGES:
        for code in blocks(page, "yaml"):
            assert yaml.safe_load(code) is not None, name_of(page)
