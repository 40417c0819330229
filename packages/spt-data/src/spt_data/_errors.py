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

    A missing file or a lost connection is not.
    """
    if isinstance(error, (CorruptSampleError, UnidentifiedImageError)):
        return True
    return type(error) in (OSError, SyntaxError, EOFError, struct.error)


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
    """The same kind of error, naming who did what to which sample."""
    message = (
        f"{doer} failed on {name_of(sample)} at {keys}: {error} (the sample has {keys_of(sample)})"
    )
    if is_decoding_error(error):
        return CorruptSampleError(message)
    for kind in (TypeError, ValueError, RuntimeError):
        if isinstance(error, kind):
            return kind(message)
    return error
