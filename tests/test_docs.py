"""The pages of the docs: their programs run, their commands exist, what follows from code is current.

The site is built strictly, once: broken links and references fail, and each public name can be found.
"""

from __future__ import annotations

import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "reference" not in page.parts)

GENERATED = runpy.run_path(str(ROOT / "tools" / "docs_pages.py"))

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


@pytest.mark.parametrize("page", GENERATED["pages"]())
def test_a_generated_page_is_that_of_the_code(page):
    written = (DOCS / page).read_text(encoding="utf-8")
    assert written == GENERATED["text_of"](page), "run `python tools/docs_pages.py`"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built without a warning."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", out]
    subprocess.run(command, cwd=ROOT, check=True)
    return out


def test_a_search_for_a_public_name_finds_its_page(site):
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    words: dict[str, set[str]] = {}
    for entry in index["docs"]:
        page = entry["location"].partition("#")[0]
        words.setdefault(page, set()).update(re.findall(r"\w+", entry["title"] + entry["text"]))
    api = (ROOT / "tests" / "public_api.txt").read_text(encoding="utf-8").splitlines()
    names = [re.split(r"[(:]", line)[0] for line in api]
    names += [f"stable_pretraining.{name}" for name in GENERATED["facade_names"]()]
    assert len({name.split(".")[0] for name in names}) == 10
    for name in names:
        page = f"reference/{name.split('.')[0]}.html"
        assert name.rpartition(".")[2] in words[page], f"{name} is not on {page}"


def test_the_site_loads_nothing_from_elsewhere(site):
    loaded = r"<(?:script|img|iframe|source)[^>]+src=[\"']?(?:https?:)?//|<link(?![^>]+canonical)[^>]+href=[\"']?(?:https?:)?//"
    for page in site.rglob("*.html"):
        found = re.search(loaded, page.read_text(encoding="utf-8"))
        assert found is None, f"{page.name}: {found[0]}"
