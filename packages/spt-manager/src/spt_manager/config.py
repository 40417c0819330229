"""The one place of global settings: ``spt.set(...)``, read by the Manager and passed down."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spt_manager import _checks as checks
from spt_manager import _log_level

CALLBACKS = (
    "progress_bar",
    "registry",
    "logging",
    "env_dump",
    "trainer_info",
    "sklearn_checkpoint",
    "wandb_checkpoint",
    "trackio_checkpoint",
    "swanlab_checkpoint",
    "module_summary",
    "slurm_info",
    "unused_params",
    "hf_checkpoint",
)
LOGGERS = ("registry",)
PROGRESS_BARS = ("auto", "rich", "simple", "none")
KEPT = {
    "checkpoints": True,
    "logs": True,
    "hydra": False,
    "slurm": False,
    "env_dump": False,
    "callback_artifacts": True,
}


def setting(default: Any, doc: str, check: checks.Check) -> Any:
    """A field with its sentence of documentation and its check."""
    metadata = {"doc": doc, "check": check}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """Settings of this process; :func:`settings_table` says what each one does.

    Raises:
        TypeError: If a value is of the wrong kind.
        ValueError: If a value is out of range.
    """

    verbose: str | int = setting(
        "INFO",
        "Least level of the messages that are shown: TRACE, DEBUG, INFO, SUCCESS, WARNING, ERROR "
        "or CRITICAL, or 0 to 50 as in `logging`. Setting it replaces loguru's own sink; sinks "
        "that you have added stay.",
        checks.level,
    )
    progress_bar: str = setting(
        "auto",
        "`rich`, `simple` (a line every 50 batches), `none`, or `auto`: rich on a terminal, else "
        "simple. Takes the place of Lightning's own bar.",
        checks.one_of(*PROGRESS_BARS),
    )
    cleanup: dict[str, bool] = setting(
        KEPT,
        "What stays after a run that ended well. The Manager adds a `CleanUpCallback` once this "
        "is changed.",
        checks.switches(*KEPT),
    )
    log_rank: int | str = setting(
        0, "Rank whose messages are shown, or `all`. Applied like `verbose`.", checks.rank
    )
    default_callbacks: dict[str, bool] = setting(
        dict.fromkeys(CALLBACKS, True),
        "Callbacks that the Manager adds, each unless the trainer has one of its kind.",
        checks.switches(*CALLBACKS),
    )
    default_loggers: dict[str, bool] = setting(
        dict.fromkeys(LOGGERS, True),
        "Loggers that the Manager adds: the run registry.",
        checks.switches(*LOGGERS),
    )
    cache_dir: str | None = setting(
        None,
        "Root of all runs, absolute or beginning with `~`; `None` leaves Lightning's own "
        "behaviour: no run directory, no resume.",
        checks.folder,
    )
    requeue_checkpoint: bool = setting(
        True, "Keep `checkpoints/last.ckpt` in the run directory.", checks.kind(bool)
    )
    requeue_checkpoint_every_n_steps: int = setting(
        0,
        "Save it every so many optimizer steps too; 0 for the end of each epoch alone.",
        checks.at_least(0),
    )
    background_checkpoint: bool = setting(
        False,
        "Write checkpoints on a thread, from a copy in (pinned) host memory.",
        checks.kind(bool),
    )
    exclude_bias_norm: bool = setting(
        False,
        "No weight decay on biases, norms, position embeddings and tokens, for modules whose "
        "`optim` says nothing about it.",
        checks.kind(bool),
    )

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            entry.metadata["check"](entry.name, getattr(self, entry.name))


NAMES = tuple(entry.name for entry in dataclasses.fields(Settings))
_DEFAULTS = Settings()
_settings: Settings | None = None


def get_config() -> Settings:
    """The settings in force.

    The first call reads the environment: ``SPT_CACHE_DIR`` and so on, one variable per setting.

    Raises:
        TypeError: If an environment variable holds a value of the wrong kind.
        ValueError: If it is out of range, or ``SPT_...`` names no setting.
    """
    global _settings
    if _settings is None:
        given = from_environment(os.environ)
        _settings = dataclasses.replace(_DEFAULTS, **given)
        _log_level.apply(_settings.verbose, _settings.log_rank, given)
    return _settings


def set(**settings: Any) -> None:
    """Change settings; those not given stay, mappings are merged.

    Args:
        **settings: Fields of :class:`Settings`.

    Raises:
        TypeError: If a value is of the wrong kind.
        ValueError: If a setting is unknown or a value is out of range.

    Example:
        >>> with config_context(requeue_checkpoint_every_n_steps=100):
        ...     get_config().requeue_checkpoint_every_n_steps
        100
    """
    global _settings
    _settings = _changed(get_config(), settings)
    _log_level.apply(_settings.verbose, _settings.log_rank, settings)


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
        changed = [name for name in NAMES if getattr(before, name) != getattr(_settings, name)]
        _settings = before
        _log_level.apply(before.verbose, before.log_rank, changed)


def settings_table() -> str:
    """All settings as a Markdown table: the documentation is made of the code.

    Example:
        >>> print(settings_table().splitlines()[0])
        | setting | environment | default | what it does |
    """
    lines = ["| setting | environment | default | what it does |", "|---|---|---|---|"]
    for entry in dataclasses.fields(Settings):
        default = getattr(_DEFAULTS, entry.name)
        shown = _shown(default) if isinstance(default, dict) else f"`{default!r}`"
        doc = entry.metadata["doc"]
        lines.append(f"| `{entry.name}` | `{_variable(entry.name)}` | {shown} | {doc} |")
    return "\n".join(lines)


def from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings that environment variables give; an empty variable gives none.

    Numbers and booleans are written as in YAML, mappings as ``name=true,other=false``.

    Raises:
        TypeError: If a value is of the wrong kind; the message names the variable.
        ValueError: If it is out of range, or names no setting; likewise.
    """
    given: dict[str, Any] = {}
    for variable, text in environ.items():
        name = variable[4:].lower()
        if not variable.startswith("SPT_") or variable.startswith(_OURS) or not text:
            continue
        if name not in NAMES:
            raise ValueError(f"The environment variable {variable}: {_unknown(name)}")
        try:
            value = checks.parse(text, type(getattr(_DEFAULTS, name)))
            given[name] = getattr(_changed(_DEFAULTS, {name: value}), name)
        except (TypeError, ValueError) as error:
            raise type(error)(f"The environment variable {variable}: {error}") from error
    return given


_OURS = ("SPT_RUN_DIR_OF_RANK_0",)


def _changed(current: Settings, settings: Mapping[str, Any]) -> Settings:
    new = dict(settings)
    for name, value in settings.items():
        if name not in NAMES:
            raise ValueError(_unknown(name))
        if isinstance(value, Path):
            new[name] = str(value)
        if isinstance(value, Mapping) and isinstance(getattr(current, name), dict):
            new[name] = {**getattr(current, name), **value}
    return dataclasses.replace(current, **new)


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, NAMES, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown setting {name!r}.{hint} There are {list(NAMES)}."


def _shown(switches: dict[str, bool]) -> str:
    on = [name for name, value in switches.items() if value]
    off = [name for name, value in switches.items() if not value]
    text = ", ".join(f"`{name}`" for name in on)
    return text + (f"; not {', '.join(f'`{name}`' for name in off)}" if off else "")


def _variable(name: str) -> str:
    return f"SPT_{name.upper()}"
