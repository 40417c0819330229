"""How much loguru shows: only its own sink is replaced, and only when somebody asks for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

from loguru import logger

_own: int | None = None


def apply(verbose: str | int, log_rank: int | str, asked: Iterable[str]) -> None:
    """Show messages of a level and a rank, once a setting of these two is asked for.

    Args:
        verbose: Least level.
        log_rank: Rank that may speak, or ``all``.
        asked: Names of the settings that were given.
    """
    global _own
    if not {"verbose", "log_rank"} & {*asked}:
        return
    try:
        logger.remove(0 if _own is None else _own)
    except ValueError:  # the program has removed it, and decides for itself
        _own = None
        return
    level = verbose.upper() if isinstance(verbose, str) else verbose
    _own = logger.add(_stderr, level=level, filter=lambda record: _may_speak(log_rank))


def _stderr(message: Any) -> None:
    print(message, end="", file=sys.stderr)


def _may_speak(log_rank: int | str) -> bool:
    return log_rank == "all" or own_rank() == log_rank


def own_rank() -> int:
    """This process's rank by the launcher's variables; 0 without a launcher."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0
