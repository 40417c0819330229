"""Pretrain vision and multi-modal models; ``import stable_pretraining as spt``.

One namespace over nine packages. Nothing heavy is imported until a name is used.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING

from stable_pretraining._lazy import load

if TYPE_CHECKING:
    from pathlib import Path

    from spt_callbacks import OnlineKNN as OnlineKNN
    from spt_callbacks import OnlineProbe as OnlineProbe
    from spt_callbacks import RankMe as RankMe
    from spt_manager import Manager as Manager
    from spt_manager import config_context as config_context
    from spt_manager import get_config as get_config
    from spt_manager import make_fsdp2_strategy as make_fsdp2_strategy
    from spt_manager import make_it_fast as make_it_fast
    from spt_manager import set as set
    from spt_methods import Module as Module
    from spt_registry import Registry

    from stable_pretraining import augment as augment
    from stable_pretraining import backbone as backbone
    from stable_pretraining import callbacks as callbacks
    from stable_pretraining import data as data
    from stable_pretraining import forward as forward
    from stable_pretraining import jax as jax
    from stable_pretraining import losses as losses
    from stable_pretraining import methods as methods
    from stable_pretraining import optim as optim
    from stable_pretraining import pictures as pictures
    from stable_pretraining import registry as registry

__version__ = version("stable-pretraining")

_ROOMS = (
    "augment",
    "backbone",
    "callbacks",
    "data",
    "forward",
    "jax",
    "losses",
    "methods",
    "optim",
    "pictures",
    "registry",
)

_NAMES = {
    "Module": "spt_methods",
    "Manager": "spt_manager",
    "config_context": "spt_manager",
    "get_config": "spt_manager",
    "make_fsdp2_strategy": "spt_manager",
    "make_it_fast": "spt_manager",
    "set": "spt_manager",
    "OnlineKNN": "spt_callbacks",
    "OnlineProbe": "spt_callbacks",
    "RankMe": "spt_callbacks",
}


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return importlib.import_module(f"stable_pretraining.{name}")
    if name in _NAMES:
        return getattr(load(_NAMES[name]), name)
    raise AttributeError(f"module 'stable_pretraining' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({"__version__", "open_registry", *_ROOMS, *_NAMES})


def open_registry(
    db_path: str | Path | None = None,
    *,
    cache_dir: str | Path | None = None,
    scan: bool = True,
) -> Registry:
    """Open the registry of a cache directory, by default the one of ``spt.set(cache_dir=...)``.

    Args:
        db_path: The index; ``{cache_dir}/registry.db`` by default.
        cache_dir: Root of the runs.
        scan: Bring the index up to date first.

    Raises:
        FileNotFoundError: If the cache directory does not exist.
        ValueError: If none is given or set.
    """
    if cache_dir is None:
        cache_dir = load("spt_manager.config").get_config().cache_dir
    found: Registry = load("spt_registry").open_registry(db_path, cache_dir=cache_dir, scan=scan)
    return found
