"""Pretrain vision and multi-modal models; ``import stable_pretraining as spt``.

One namespace over nine packages. Nothing heavy is imported until a name is used.
"""

from __future__ import annotations

import importlib.util
from importlib.metadata import version
from typing import TYPE_CHECKING

from stable_pretraining._lazy import load

if TYPE_CHECKING:
    from pathlib import Path

    from spt_callbacks import EarlyStopping as EarlyStopping
    from spt_callbacks import ImageRetrieval as ImageRetrieval
    from spt_callbacks import LiDAR as LiDAR
    from spt_callbacks import LoggingCallback as LoggingCallback
    from spt_callbacks import ModuleSummary as ModuleSummary
    from spt_callbacks import OnlineKNN as OnlineKNN
    from spt_callbacks import OnlineProbe as OnlineProbe
    from spt_callbacks import OnlineWriter as OnlineWriter
    from spt_callbacks import RankMe as RankMe
    from spt_callbacks import SklearnCheckpoint as SklearnCheckpoint
    from spt_callbacks import TeacherStudentCallback as TeacherStudentCallback
    from spt_callbacks import TrainerInfo as TrainerInfo
    from spt_callbacks import log as log
    from spt_callbacks import log_dict as log_dict
    from spt_manager import Manager as Manager
    from spt_manager import config_context as config_context
    from spt_manager import get_config as get_config
    from spt_manager import make_fsdp2_strategy as make_fsdp2_strategy
    from spt_manager import make_it_fast as make_it_fast
    from spt_manager import set as set
    from spt_methods import Module as Module
    from spt_methods.backbones import TeacherStudentWrapper as TeacherStudentWrapper
    from spt_methods.methods import BYOL as BYOL
    from spt_methods.methods import DINO as DINO
    from spt_methods.methods import MAE as MAE
    from spt_methods.methods import NNCLR as NNCLR
    from spt_methods.methods import BarlowTwins as BarlowTwins
    from spt_methods.methods import CrossMAE as CrossMAE
    from spt_methods.methods import DINOv2 as DINOv2
    from spt_methods.methods import SimCLR as SimCLR
    from spt_methods.methods import SwAV as SwAV
    from spt_methods.methods import VICReg as VICReg
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

    SKLEARN_AVAILABLE: bool
    SWANLAB_AVAILABLE: bool
    TRACKIO_AVAILABLE: bool
    WANDB_AVAILABLE: bool

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

_MANAGER = (
    "Manager",
    "config_context",
    "get_config",
    "make_fsdp2_strategy",
    "make_it_fast",
    "set",
)
_CALLBACKS = (
    "EarlyStopping",
    "ImageRetrieval",
    "LiDAR",
    "LoggingCallback",
    "ModuleSummary",
    "OnlineKNN",
    "OnlineProbe",
    "OnlineWriter",
    "RankMe",
    "SklearnCheckpoint",
    "TeacherStudentCallback",
    "TrainerInfo",
    "log",
    "log_dict",
)
_METHODS = (
    "BYOL",
    "BarlowTwins",
    "CrossMAE",
    "DINO",
    "DINOv2",
    "MAE",
    "NNCLR",
    "SimCLR",
    "SwAV",
    "VICReg",
)
_NAMES = {
    "Module": "spt_methods",
    "TeacherStudentWrapper": "spt_methods.backbones",
    **dict.fromkeys(_MANAGER, "spt_manager"),
    **dict.fromkeys(_CALLBACKS, "spt_callbacks"),
    **dict.fromkeys(_METHODS, "spt_methods.methods"),
}

# whether what an extra brings is there
_AVAILABLE = {
    "SKLEARN_AVAILABLE": "sklearn",
    "SWANLAB_AVAILABLE": "swanlab",
    "TRACKIO_AVAILABLE": "trackio",
    "WANDB_AVAILABLE": "wandb",
}


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return importlib.import_module(f"stable_pretraining.{name}")
    if name in _NAMES:
        return getattr(load(_NAMES[name]), name)
    if name in _AVAILABLE:
        return importlib.util.find_spec(_AVAILABLE[name]) is not None
    raise AttributeError(f"module 'stable_pretraining' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({"__version__", "open_registry", *_ROOMS, *_NAMES, *_AVAILABLE})


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
