"""Training from a YAML configuration, alone or as a Hydra multirun."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from loguru import logger
from omegaconf import DictConfig, OmegaConf, open_dict

from spt_manager.allow import require_allowed
from spt_manager.config import config_context
from spt_manager.manager import Manager

PARTS = ("trainer", "module", "data")
IN_TRAINER = ("callbacks", "logger")
OF_RANKS = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")
"""What Lightning sets in the environment when it starts the ranks of a job."""
OPTIONS = ("seed", "ckpt_path", "weights_only", "compile", "run_id")


class ConfigError(ValueError):
    """A configuration that cannot be run."""


def run_config(
    config: str | Path,
    overrides: Sequence[str] = (),
    *,
    multirun: bool = False,
    allow: Sequence[str] | None = None,
) -> None:
    """Run a configuration with ``trainer``, ``module`` and ``data``.

    A YAML is code: every ``_target_`` in it is imported and called.

    Args:
        config: A YAML file; see :func:`run_composed` for its keys.
        overrides: Hydra overrides, ``key=value``.
        multirun: Sweep over comma-separated values; the launcher comes from the configuration.
        allow: Packages whose names the configuration may use; ``None`` for any.

    Raises:
        FileNotFoundError: If there is no such file.
        ConfigError: If a part is missing.
        NotAllowedError: If it names something that is not allowed.
    """
    path = existing(config)
    if multirun:
        _sweep(path, overrides, allow)
    else:
        run_composed(compose_file(path, overrides), allow=allow)


HYDRAS = (
    "hydra", "hydra_plugins", "logging.StreamHandler", "logging.FileHandler", "colorlog.ColoredFormatter",
)  # fmt: skip
"""What Hydra's own configuration names."""


def existing(config: str | Path) -> Path:
    """The absolute path of a configuration file.

    Raises:
        FileNotFoundError: If there is none.
        ConfigError: If its name does not end in ``.yaml``, as Hydra reads it.
    """
    path = Path(config).expanduser().absolute()
    if not path.is_file():
        raise FileNotFoundError(f"There is no configuration file {str(path)!r}.")
    if path.suffix != ".yaml":
        raise ConfigError(f"Hydra reads files that end in '.yaml', got {path.name!r}; rename it.")
    return path


def compose_file(path: Path, overrides: Sequence[str] = (), *, hydra_too: bool = False) -> Any:
    """A file, the files of its defaults list, and overrides, as one configuration."""
    from hydra import compose, initialize_config_dir

    raw: Any = OmegaConf.load(path)
    ignored = [key for key in ("run", "sweep", "job") if key in (raw.get("hydra") or {})]
    if ignored and not hydra_too:
        logger.warning(
            f"{path.name} sets {[f'hydra.{key}' for key in ignored]}: what a run writes goes to the "
            "run directory under `cache_dir` all the same."
        )
    with initialize_config_dir(str(path.parent), version_base="1.3"):
        return compose(path.stem, list(overrides), return_hydra_config=hydra_too)


def run_composed(config: DictConfig, *, allow: Sequence[str] | None = None) -> Manager:
    """Run one composed configuration.

    Args:
        config: ``trainer``, ``module`` and ``data``; optionally ``callbacks`` and ``logger``, which
            go to the trainer; ``seed``, ``ckpt_path``, ``weights_only``, ``compile``, ``run_id``;
            ``matmul_precision``; ``settings``, as in ``spt.set``. Other keys are for
            interpolations.
        allow: Packages whose names the configuration may use; ``None`` for any.

    Returns:
        The Manager, after the run.

    Raises:
        ConfigError: If a part is missing, or ``callbacks`` or ``logger`` stand in two places.
        NotAllowedError: If it names something that is not allowed.
    """
    if allow is not None:
        require_allowed(config, allow)
    if config.get("matmul_precision"):
        torch.set_float32_matmul_precision(config.matmul_precision)
    settings = OmegaConf.to_container(config.get("settings") or OmegaConf.create({}), resolve=True)
    with config_context(**settings) if settings else nullcontext():  # type: ignore[arg-type]
        manager = manager_of(config)
        manager()
    return manager


def manager_of(config: DictConfig) -> Manager:
    """The Manager of a composed configuration.

    Raises:
        ConfigError: If a part is missing, or ``callbacks`` or ``logger`` stand in two places.
    """
    missing = [name for name in PARTS if name not in config]
    if missing:
        raise ConfigError(f"The configuration lacks {missing}; it has {sorted(map(str, config))}.")
    whole = config.copy()
    for name in IN_TRAINER:
        if name not in config:
            continue
        if name in config.trainer:
            raise ConfigError(f"`{name}` stands both at the top and in `trainer`; keep one.")
        with open_dict(config):
            config.trainer[name] = config.pop(name)
    options = {name: config[name] for name in OPTIONS if config.get(name) is not None}
    return Manager(
        trainer=config.trainer, module=config.module, data=config.data, config=whole, **options
    )


def _sweep(path: Path, overrides: Sequence[str], allow: Sequence[str] | None) -> None:
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import MissingConfigException

    def job(config: DictConfig) -> None:
        with _as_single_run(path):
            run_composed(config, allow=allow)

    if allow is not None:
        launcher = compose_file(path, hydra_too=True).hydra
        require_allowed(launcher, [*allow, *HYDRAS], "hydra")
    where = create_config_search_path(str(path.parent))
    # hydra.main would end this process where a job fails, and read its arguments
    hydra = Hydra.create_main_hydra2(task_name=path.stem, config_search_path=where)
    try:
        hydra.multirun(config_name=path.stem, task_function=job, overrides=list(overrides))
    except MissingConfigException as error:
        if "submitit" not in str(error):
            raise
        raise ConfigError(
            "The configuration's launcher needs submitit: pip install 'spt-manager[slurm]'"
        ) from error
    finally:
        GlobalHydra.instance().clear()


@contextmanager
def _as_single_run(path: Path) -> Iterator[None]:
    """Let ranks that Lightning starts run this job of the sweep, not the sweep again."""
    from hydra.core.hydra_config import HydraConfig

    hydra_config = HydraConfig.instance()
    kept, environ = hydra_config.cfg, {name: os.environ.get(name) for name in OF_RANKS}
    overrides = list(HydraConfig.get().overrides.task)
    hydra_config.cfg = None
    try:
        with _arguments(str(path), *overrides):
            yield
    finally:
        hydra_config.cfg = kept
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()  # its other ranks are gone
        for name, value in environ.items():
            os.environ.pop(name, None)
            os.environ.update({} if value is None else {name: value})


@contextmanager
def _arguments(*arguments: str) -> Iterator[None]:
    kept = sys.argv
    sys.argv = [kept[0], *arguments]
    try:
        yield
    finally:
        sys.argv = kept
