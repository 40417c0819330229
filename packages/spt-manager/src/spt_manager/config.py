"""The one place of global settings: ``spt.set(...)``, read by the Manager and passed down."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Settings:
    """Settings of this process.

    Attributes:
        cache_dir: Root of all runs, absolute or beginning with ``~``; ``None`` leaves Lightning's
            own behaviour. The environment variable ``SPT_CACHE_DIR`` gives its first value.
        requeue_checkpoint: Keep ``checkpoints/last.ckpt`` in the run directory.
        requeue_checkpoint_every_n_steps: Save it every so many steps too; 0 for once an epoch.
        default_callbacks: Callbacks that the Manager adds: ``logging``.
        default_loggers: Loggers that the Manager adds: ``registry``.
    """

    cache_dir: str | None = None
    requeue_checkpoint: bool = True
    requeue_checkpoint_every_n_steps: int = 0
    default_callbacks: dict[str, bool] = field(default_factory=lambda: {"logging": True})
    default_loggers: dict[str, bool] = field(default_factory=lambda: {"registry": True})

    def __post_init__(self) -> None:
        _check_cache_dir(self.cache_dir)
        _check_kind("requeue_checkpoint", self.requeue_checkpoint, bool)
        steps = self.requeue_checkpoint_every_n_steps
        _check_kind("requeue_checkpoint_every_n_steps", steps, int)
        if isinstance(steps, bool) or steps < 0:
            raise ValueError(f"`requeue_checkpoint_every_n_steps` must be >= 0, got {steps}.")
        _check_switches("default_callbacks", self.default_callbacks, ("logging",))
        _check_switches("default_loggers", self.default_loggers, ("registry",))


def _check_cache_dir(value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, str):
        raise TypeError(f"`cache_dir` must be a string or None, got {type(value).__name__}.")
    if not value.startswith("~") and not os.path.isabs(value):
        raise ValueError(
            f"`cache_dir` must be absolute or begin with ~, got {value!r} (from spt.set or from "
            "the environment variable SPT_CACHE_DIR)."
        )


def _check_kind(name: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"`{name}` must be {kind.__name__}, got {type(value).__name__}.")


def _check_switches(name: str, value: Any, known: tuple[str, ...]) -> None:
    _check_kind(name, value, dict)
    unknown = sorted(key for key in value if key not in known)
    if unknown:
        raise ValueError(f"`{name}` has the keys {unknown}; there are {list(known)}.")
    for key, switch in value.items():
        _check_kind(f"{name}[{key!r}]", switch, bool)


_settings: Settings | None = None


def get_config() -> Settings:
    """The settings in force.

    Raises:
        ValueError: If the environment variable ``SPT_CACHE_DIR`` is no usable path.
    """
    global _settings
    if _settings is None:
        _settings = Settings(cache_dir=os.environ.get("SPT_CACHE_DIR") or None)
    return _settings


def set(**settings: Any) -> None:
    """Change settings; those not given stay, mappings are merged.

    Args:
        **settings: Fields of :class:`Settings`.

    Raises:
        TypeError: If a value is of the wrong kind.
        ValueError: If a setting is unknown or a value is out of range.
    """
    global _settings
    current = get_config()
    known = [entry.name for entry in dataclasses.fields(Settings)]
    for name, value in settings.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"Unknown setting {name!r}.{hint} There are {known}.")
        if isinstance(value, Path):
            settings[name] = str(value)
        if isinstance(value, dict):
            settings[name] = {**getattr(current, name), **value}
    _settings = dataclasses.replace(current, **settings)


@contextmanager
def config_context(**settings: Any) -> Iterator[Settings]:
    """Change settings for the duration of a block.

    Args:
        **settings: Fields of :class:`Settings`.
    """
    global _settings
    before = get_config()
    try:
        set(**settings)
        yield get_config()
    finally:
        _settings = before
