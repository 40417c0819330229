"""Patience with a server that asks for it (HTTP 429)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from loguru import logger

T = TypeVar("T")
TRIES = 100
PAUSE_S = 10.0  # when the server does not say how long


def patiently(action: Callable[[], T], sleep: Callable[[float], None] = time.sleep) -> T:
    """Do something; as long as a server answers that there are too many requests, do it again.

    The Hub's client waits a few times by itself; many jobs that start together need longer. Other
    errors are raised at once.

    Args:
        action: What asks a server.
        sleep: Waits for a number of seconds.

    Returns:
        What the action returns.
    """
    for attempt in range(1, TRIES + 1):
        try:
            return action()
        except Exception as error:
            pause_s = asked_pause_s(error)
            if pause_s is None or attempt == TRIES:
                raise
        logger.warning(f"Too many requests (HTTP 429); try {attempt + 1} in {pause_s:g} s.")
        sleep(pause_s)
    raise AssertionError("unreachable: the last try returns or raises")


def asked_pause_s(error: BaseException | None) -> float | None:
    """Seconds to wait if an error, or what it came from, is an HTTP 429; None for other errors."""
    while error is not None:
        response = getattr(error, "response", None)
        if getattr(response, "status_code", None) == 429:
            asked = str(getattr(response, "headers", {}).get("Retry-After", ""))
            return float(asked) if asked.isdigit() else PAUSE_S
        error = error.__cause__ or error.__context__
    return None
