"""List each public name of every package with its signature, as ``tests/public_api.txt`` holds it.

``python tools/public_api.py > tests/public_api.txt`` after a deliberate change of the API.
"""

from __future__ import annotations

import importlib
import inspect
import re
import types
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def modules() -> list[str]:
    """The import names of the packages, without the facade, which only presents them."""
    found = (file.parent.name for file in (ROOT / "packages").glob("*/src/*/__init__.py"))
    return sorted(name for name in found if name != "stable_pretraining")


def public_names(module: types.ModuleType) -> list[str]:
    """``__all__`` where there is one, else what is not private and not a foreign module."""
    names = getattr(module, "__all__", None) or dir(module)
    package = module.__name__.split(".")[0]
    return sorted(
        name
        for name in names
        if not name.startswith("_")
        and name != "annotations"
        and getattr(getattr(module, name), "__module__", package).split(".")[0] == package
        and not isinstance(getattr(module, name), types.ModuleType)
    )


def signature(value: object) -> str:
    """The parameters with their defaults; addresses of objects are left out."""
    try:
        text = str(inspect.signature(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return f": {type(value).__name__}"
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def lines() -> Iterator[str]:
    """One line a name: ``package.name(parameters)``."""
    for name in modules():
        module = importlib.import_module(name)
        for public in public_names(module):
            yield f"{name}.{public}{signature(getattr(module, public))}"


if __name__ == "__main__":
    print("\n".join(lines()))
