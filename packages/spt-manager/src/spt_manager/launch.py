"""Training from a YAML configuration, alone or as a Hydra multirun."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from spt_manager.manager import Manager

PARTS = ("trainer", "module", "data")


def run_config(
    config: str | Path, overrides: Sequence[str] = (), *, multirun: bool = False
) -> None:
    """Run a configuration with ``trainer``, ``module`` and ``data``, and optionally ``seed``.

    A YAML is code: every ``_target_`` in it is imported and called.

    Args:
        config: A YAML file.
        overrides: Hydra overrides, ``key=value``.
        multirun: Sweep over comma-separated values; the launcher comes from the configuration.

    Raises:
        FileNotFoundError: If there is no such file.
        KeyError: If a part is missing.
    """
    path = Path(config).expanduser().absolute()
    if not path.is_file():
        raise FileNotFoundError(f"There is no configuration file {str(path)!r}.")
    if multirun:
        _sweep(path, overrides)
        return
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(path.parent), version_base="1.3"):
        composed = compose(path.stem, list(overrides))
    run_composed(composed)


def run_composed(config: DictConfig) -> None:
    """Run one composed configuration.

    Raises:
        KeyError: If a part is missing.
    """
    missing = [name for name in PARTS if name not in config]
    if missing:
        raise KeyError(f"The configuration lacks {missing}; it has {sorted(map(str, config))}.")
    manager = Manager(
        trainer=config.trainer,
        module=config.module,
        data=config.data,
        seed=config.get("seed"),
        ckpt_path=config.get("ckpt_path"),
    )
    manager()


def _sweep(path: Path, overrides: Sequence[str]) -> None:
    import hydra

    arguments = sys.argv
    sys.argv = [arguments[0], "--multirun", *overrides]
    try:
        hydra.main(config_path=str(path.parent), config_name=path.stem, version_base="1.3")(
            run_composed
        )()
    finally:
        sys.argv = arguments
