"""A griffe extension: what our docstrings say in reST's words, said in Markdown's for the site."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Docstrings(griffe.Extension):
    """Doctests become blocks of code, and roles such as ``:class:`Module` `` plain code."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of a class, a function or a module once it is loaded."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """A docstring with the sections and the code that griffe and Markdown know."""
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
    text = re.sub(
        r"^(Needs|Reads|Writes): ", r"\n\1: ", text, flags=re.MULTILINE
    )  # a paragraph each
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
