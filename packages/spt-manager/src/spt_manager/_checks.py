"""Checks of settings: each takes a name and a value, and raises with both."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

Check = Callable[[str, Any], None]
LEVELS = ("TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL")
NUMBERS = (0, 10, 20, 30, 40, 50)


def kind(expected: type) -> Check:
    """A value of one kind; a bool is no number."""

    def check(name: str, value: Any) -> None:
        if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
            raise TypeError(f"`{name}` must be {expected.__name__}, got {type(value).__name__}.")

    return check


def at_least(smallest: int) -> Check:
    """A whole number from ``smallest`` on."""

    def check(name: str, value: Any) -> None:
        kind(int)(name, value)
        if value < smallest:
            raise ValueError(f"`{name}` must be >= {smallest}, got {value}.")

    return check


def one_of(*choices: str) -> Check:
    """One of some words."""

    def check(name: str, value: Any) -> None:
        kind(str)(name, value)
        if value not in choices:
            raise ValueError(f"`{name}` must be one of {list(choices)}, got {value!r}.")

    return check


def switches(*known: str) -> Check:
    """A mapping of some of these names to whether they are on."""

    def check(name: str, value: Any) -> None:
        kind(dict)(name, value)
        unknown = [key for key in value if key not in known]
        if unknown:
            raise ValueError(f"`{name}` has the keys {unknown}; there are {list(known)}.")
        for key, switch in value.items():
            kind(bool)(f"{name}[{key!r}]", switch)

    return check


def level(name: str, value: Any) -> None:
    """A level of loguru by name, or of ``logging`` by number."""
    if isinstance(value, str) and value.upper() in LEVELS:
        return
    if type(value) is int and value in NUMBERS:
        return
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        raise ValueError(
            f"`{name}` must be one of {list(LEVELS)} or {list(NUMBERS)}, got {value!r}."
        )
    raise TypeError(f"`{name}` must be str or int, got {type(value).__name__}.")


def rank(name: str, value: Any) -> None:
    """A rank, or ``all``."""
    if value != "all":
        if isinstance(value, str):
            raise ValueError(f"`{name}` must be a rank or 'all', got {value!r}.")
        at_least(0)(name, value)


def folder(name: str, value: Any) -> None:
    """The path of a folder that does not depend on the working directory; or ``None``."""
    if value is None:
        return
    if not isinstance(value, str):
        raise TypeError(f"`{name}` must be a string or None, got {type(value).__name__}.")
    if not value.startswith("~") and not os.path.isabs(value):
        raise ValueError(f"`{name}` must be absolute or begin with ~, got {value!r}.")


def parse(text: str, expected: type) -> Any:
    """A value as an environment variable spells it; ``expected`` decides between readings.

    Example:
        >>> parse("3", int), parse("off", bool), parse("rich", str), parse("a=true,b=no", dict)
        (3, False, 'rich', {'a': True, 'b': False})
    """
    if expected is dict:
        pairs = [item.partition("=") for item in text.split(",")]
        return {key.strip(): parse(value.strip(), bool) for key, _, value in pairs}
    words = {"true": True, "yes": True, "on": True, "1": True}
    words |= {"false": False, "no": False, "off": False, "0": False}
    if expected is bool:
        return words.get(text.lower(), text)
    return int(text) if text.lstrip("-").isdigit() else text
