"""Write the pages of the docs that follow from elsewhere: tables, reference, the tutorial, the benchmarks.

``python tools/docs_pages.py`` after a change of the API, of a command or of a setting; ``tests/test_docs.py``
compares what is written with the code.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parent))
from public_api import ROOMS, public_names

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
NOTEBOOK = ROOT / "examples" / "simclr_tutorial.ipynb"
NOTICE = "<!-- written by tools/docs_pages.py -->\n\n"


def cells(notebook: Path) -> list[tuple[str, str]]:
    """Kind (``"markdown"`` or ``"code"``) and text of each cell."""
    found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [(cell["cell_type"], "".join(cell["source"])) for cell in found]


def code_cells(notebook: Path) -> list[str]:
    """The programs of a notebook, in order."""
    return [text for kind, text in cells(notebook) if kind == "code"]


def tutorial() -> str:
    """The notebook as a page, with the pictures that it draws."""
    page = ""
    for kind, text in cells(NOTEBOOK):
        if kind == "markdown":
            page += text + "\n\n"
            continue
        page += f"<!-- not run: a test runs the notebook -->\n\n```python\n{text}\n```\n\n"
        for picture in re.findall(r'"(\w+)\.png"', text):
            page += f"![{picture}](assets/{picture}.png)\n\n"
    title, rest = page.split("\n", 1)
    return f"{title}\n\nThis page is the notebook `examples/simclr_tutorial.ipynb`.\n{rest}"


def benchmarks() -> str:
    """The sections of the packages' READMEs that show figures, with the command that measures them."""
    text = "# Benchmarks\n\nThe figures of the packages' READMEs, each with its machine and its command. From the root of the repository\n"
    text += "`hatch run bench NAME` is `python benchmarks/NAME.py`. Timings are of CPUs: none of ours has been timed on a GPU.\n"
    shown: set[str] = set()
    for readme in sorted((ROOT / "packages").glob("*/README.md")):
        sections = re.split(r"^## ", readme.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
        for section in sections:
            scripts = re.findall(r"benchmarks/(\w+)\.py|hatch run bench (\w+)", section)
            if scripts and "|---" in section:
                shown |= {"".join(pair) for pair in scripts}
                text += f"\n## {readme.parent.name}: {section.rstrip()}\n"
    others = sorted({path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py")} - shown)
    listed = ", ".join(f"`{name}`" for name in others)
    return (
        f"{text}\n## What the methods learn\n\n{listed}: on [a page of their own](learning.md).\n"
    )


def methods() -> str:
    """The table of methods."""
    from spt_methods.catalogue import table

    return f"""# Methods

`spt methods` prints this table. A method is a forward function in `spt.forward` and a class in `spt.methods` that uses it.
*Reads* is what a training batch holds, *brings* the callbacks that come with the class, *parity test* the test of
`spt-methods` that holds it against its paper or official code, *has learned* the accuracy in per cent of a small network that it pretrained on
Fashion-MNIST, in brackets that of the untrained network ([how](../learning.md)).

{table()}
"""


def losses() -> str:
    """The table of losses."""
    from spt_losses._table import table

    return f"""# Losses

Value and gradient equal the paper's formula, in one process and under any number of ranks; the column *ranks* says over what.
Each name is in `spt_losses` and in `spt.losses`; the test is one of `spt-losses`.

{table()}
"""


def callbacks() -> str:
    """The table of callbacks."""
    from spt_callbacks._table import table

    return f"""# Callbacks

Each works in any `LightningModule` whose step returns a mapping, and is in `spt_callbacks` and in `spt.callbacks`.

{table()}
"""


def settings() -> str:
    """The table of settings."""
    from spt_manager.config import settings_table

    return f"""# Settings

`spt.set(...)` changes them, `spt.config_context(...)` changes them for a block, and an environment variable, read once, gives them
from outside. Mappings are merged: `spt.set(default_callbacks={{"env_dump": False}})`, or
`SPT_DEFAULT_CALLBACKS=env_dump=false`. `spt config settings` prints this table.

{settings_table()}
"""


def commands() -> str:
    """What every command of ``spt`` and ``spt-registry`` takes."""
    from stable_pretraining.cli import main

    head = "# Commands\n\n`spt-registry` is `spt registry`, without the other packages.\n\n"
    return head + "\n".join(command_sections(main, "spt"))


def command_sections(command: click.Command, name: str) -> Iterator[str]:
    """A section for each command below one, depth first."""
    context = click.Context(command, info_name=name)
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from command_sections(found, f"{name} {child}")
        return
    pieces = " ".join(command.collect_usage_pieces(context))
    yield f"## {name}\n\n```text\n{name} {pieces}\n```\n\n{help_text(command)}\n{options(command)}"


def help_text(command: click.Command) -> str:
    r"""The help in Markdown: paragraphs that click is told to leave alone (``\b``) become blocks."""
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    return "\n\n".join(
        f"```text\n{text.removeprefix(chr(8)).strip()}\n```" if text.startswith("\b") else text
        for text in paragraphs
    )


def options(command: click.Command) -> str:
    """The options as a table; nothing if there are none."""
    found = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    if not found:
        return ""
    lines = ["\n| option | default | what it does |", "|---|---|---|"]
    for option in found:
        named = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
        lines.append(f"| {named} | {default_of(option)} | {option_help(option)} |")
    return "\n".join(lines) + "\n"


def default_of(option: click.Option) -> str:
    """The default as the table shows it; this user's home is ``~``."""
    default = option.to_info_dict()["default"]
    if option.is_flag or callable(default) or default in (None, ()) or "Sentinel" in repr(default):
        return ""
    return f"`{default}`".replace(str(Path.home()), "~")


def option_help(option: click.Option) -> str:
    """Its help, with the environment variable that stands for it."""
    text = (option.help or "").replace("|", "\\|")
    choices = getattr(option.type, "choices", None)
    parts = [text, f"One of {', '.join(f'`{c}`' for c in choices)}." if choices else ""]
    parts.append(f"Or `{option.envvar}` in the environment." if option.envvar else "")
    return " ".join(part for part in parts if part)


def reference(package: str) -> str:
    """The page of one package: each public name where it is first met, with its docstring."""
    seen: dict[int, str] = {}
    text = f"# {package}\n"
    for room in (r for r in ROOMS if r.split(".")[0] == package):
        module = importlib.import_module(room)
        summary = inspect.cleandoc(module.__doc__ or "").split("\n\n")[0]
        text += f"\n## {room}\n\n{summary}\n" + room_entries(room, module, seen)
    return text


def room_entries(room: str, module: types.ModuleType, seen: dict[int, str]) -> str:
    """The entries of a room; what an earlier room has shown, and constants, in a line each."""
    entries, again, constants = "", [], []
    for name in public_names(module):
        value = getattr(module, name)
        if not callable(value):
            constants.append(f"`{room}.{name}`")
        elif id(value) in seen:
            again.append(f"[`{name}`][{seen[id(value)]}]")
        else:
            seen[id(value)] = f"{room}.{name}"
            entries += f"\n::: {room}.{name}\n"
    if again:
        entries = f"\nAlso here: {', '.join(again)}.\n{entries}"
    if constants:
        entries = f"\nConstants: {', '.join(constants)}.\n{entries}"
    return entries


def facade_names() -> list[str]:
    """The public names of ``stable_pretraining``."""
    import stable_pretraining as spt

    return [name for name in dir(spt) if not name.startswith("_")]


def facade() -> str:
    """The page of ``stable_pretraining``: where each of its names comes from."""
    import stable_pretraining as spt

    lines = ["| name | what it is | home |", "|---|---|---|"]
    for name in facade_names():
        value: Any = getattr(spt, name)
        home = spt._NAMES.get(name, f"stable_pretraining.{name}")
        doc = inspect.cleandoc(value.__doc__ or "").split("\n\n")[0].replace("\n", " ")
        if name in spt._AVAILABLE:
            doc = f"Whether `{spt._AVAILABLE[name]}` is installed."
        link = f"[`{home}`][{home}.{name}]" if name in spt._NAMES else f"`{home}`"
        lines.append(f"| `spt.{name}` | {doc} | {link} |")
    text = "# stable_pretraining\n\nOne namespace over the packages: `import stable_pretraining as spt`. Rooms such as\n"
    text += "`spt.losses` present the names of their packages; nothing heavy is imported until a name is used.\n\n"
    return text + "\n".join(lines) + "\n" + reference("stable_pretraining").partition("\n")[2]


def packages() -> list[str]:
    """The import names, in the order of the rooms."""
    return list(dict.fromkeys(room.split(".")[0] for room in ROOMS))


def pages() -> dict[str, Callable[[], str]]:
    """Each generated page and what writes it."""
    tables = (methods, losses, callbacks, settings, commands)
    found: dict[str, Callable[[], str]] = {f"tables/{f.__name__}.md": f for f in tables}
    found |= {"tutorial.md": tutorial, "benchmarks.md": benchmarks}
    for package in packages():
        found[f"reference/{package}.md"] = lambda package=package: reference(package)
    found["reference/stable_pretraining.md"] = facade
    return found


def text_of(page: str) -> str:
    """The text of a generated page, as it is to be."""
    return NOTICE + re.sub(r"\n{3,}", "\n\n", pages()[page]())


if __name__ == "__main__":
    for page in pages():
        (DOCS / page).parent.mkdir(exist_ok=True)
        (DOCS / page).write_text(text_of(page), encoding="utf-8")
