"""What goes wrong with a sample, in words that name it."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from PIL import UnidentifiedImageError


class CorruptSampleError(ValueError):
    """The data of a sample cannot be decoded; ``on_error="skip"`` leaves such samples out."""


def is_decoding_error(error: BaseException) -> bool:
    """Whether it is what Pillow raises for bytes that are no whole image.

    A missing file, a lost connection and what else the operating system reports are not: those
    have a number.
    """
    if isinstance(error, (CorruptSampleError, UnidentifiedImageError)):
        return True
    if type(error) is OSError:
        return error.errno is None
    return type(error) in (SyntaxError, EOFError, struct.error)


def _read_by_pillow(error: BaseException) -> bool:
    """Whether it arose where Pillow opens or loads an image.

    Its other operations raise an ``OSError`` too, for a mode that they do not take.
    """
    step = error.__traceback__
    while step is not None:
        module = str(step.tb_frame.f_globals.get("__name__"))
        if module.startswith("PIL.") and step.tb_frame.f_code.co_name in ("open", "load"):
            return True
        step = step.tb_next
    return isinstance(error, (CorruptSampleError, UnidentifiedImageError))


def keys_of(sample: Any) -> str:
    """The keys that are there, for a message."""
    if isinstance(sample, Mapping):
        return str(sorted(map(str, sample)))
    return f"no keys: it is a {type(sample).__name__}"


def name_of(sample: Any) -> str:
    """How a message calls a sample."""
    if isinstance(sample, Mapping) and "sample_idx" in sample:
        return f"sample {sample['sample_idx']}"
    return "the sample"


def explain(error: Exception, doer: str, sample: Any, keys: str) -> Exception:
    """The same kind of error, naming who did what to which sample; others get it as a note."""
    message = (
        f"{doer} failed on {name_of(sample)} at {keys}: {error} (the sample has {keys_of(sample)})"
    )
    if is_decoding_error(error):
        return CorruptSampleError(message) if _read_by_pillow(error) else ValueError(message)
    for kind in (TypeError, ValueError, RuntimeError, KeyError, IndexError, AttributeError):
        if isinstance(error, kind):
            return kind(message)
    if hasattr(error, "add_note"):  # from Python 3.11 on
        error.add_note(message)
    return error
