"""Attributes that import their home the first time they are used (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from types import ModuleType


def load(module: str, extra: str | None = None) -> ModuleType:
    """Import ``module``, or say which extra brings it.

    Args:
        module: Dotted name of the module to import.
        extra: The extra of ``stable-pretraining`` that installs it; ``None`` if it
            is always there.

    Raises:
        ModuleNotFoundError: If the distribution that holds ``module`` is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if extra is None or error.name != package:
            raise
        raise ModuleNotFoundError(
            f"`{package}` is not installed; it comes with an extra: "
            f'pip install "stable-pretraining[{extra}]"',
            name=package,
        ) from error


def mirror(
    name: str,
    target: str,
    *,
    extra: str | None = None,
    borrowed: Mapping[str, str] | None = None,
    **elsewhere: str,
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Make the ``__getattr__`` and ``__dir__`` of a module that presents another one.

    Args:
        name: ``__name__`` of the presenting module, used in error messages.
        target: Dotted name of the module whose attributes it presents.
        extra: The extra that installs ``target``, if it is optional.
        borrowed: Names that another module has, and that module's dotted name.
        **elsewhere: Further attributes and the dotted module that each one stands for.
    """
    homes = dict(borrowed or {})

    def getattribute(attribute: str) -> object:
        if attribute in elsewhere:
            return load(elsewhere[attribute], extra)
        if attribute in homes:
            return getattr(load(homes[attribute], extra), attribute)
        if attribute.startswith("__"):
            raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
        home = load(target, extra)
        try:
            return getattr(home, attribute)
        except AttributeError:
            pass
        try:
            return importlib.import_module(f"{target}.{attribute}")
        except ModuleNotFoundError as error:
            if error.name != f"{target}.{attribute}":
                raise
        raise AttributeError(f"module {name!r} has no attribute {attribute!r}")

    def directory() -> list[str]:
        public = [entry for entry in dir(load(target, extra)) if not entry.startswith("_")]
        return sorted({*public, *homes, *elsewhere})

    return getattribute, directory


def offer(name: str, **submodules: str) -> None:
    """Let ``from {name}.{submodule} import ...`` work where ``name`` is a module and no folder.

    The import system looks into ``sys.modules`` again once it has imported the parent.

    Args:
        name: ``__name__`` of the presenting module.
        **submodules: Their names, and the dotted module that each one presents.
    """
    for submodule, target in submodules.items():
        module = ModuleType(f"{name}.{submodule}", f"The names of ``{target}``.")
        names = mirror(module.__name__, target)
        vars(module).update(zip(("__getattr__", "__dir__"), names, strict=True))
        sys.modules[module.__name__] = module
