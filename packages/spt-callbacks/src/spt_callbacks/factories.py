"""The callbacks that a run gets by default; nothing adds them but a caller of this function."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import lightning as pl

from spt_callbacks.checkpointing.huggingface import HuggingFaceCheckpointCallback
from spt_callbacks.checkpointing.sklearn import SklearnCheckpoint
from spt_callbacks.checkpointing.trackers import (
    SwanLabCheckpoint,
    TrackioCheckpoint,
    WandbCheckpoint,
)
from spt_callbacks.system.environment import EnvironmentDumpCallback
from spt_callbacks.system.logging import LoggingCallback
from spt_callbacks.system.module_registry import ModuleRegistryCallback
from spt_callbacks.system.module_summary import ModuleSummary
from spt_callbacks.system.slurm_info import SLURMInfo
from spt_callbacks.system.trainer_info import TrainerInfo
from spt_callbacks.system.unused_parameters import LogUnusedParametersOnce

DEFAULTS: dict[str, Callable[[], pl.Callback]] = {
    "registry": ModuleRegistryCallback,
    "logging": LoggingCallback,
    "env_dump": EnvironmentDumpCallback,
    "trainer_info": TrainerInfo,
    "sklearn_checkpoint": SklearnCheckpoint,
    "wandb_checkpoint": WandbCheckpoint,
    "trackio_checkpoint": TrackioCheckpoint,
    "swanlab_checkpoint": SwanLabCheckpoint,
    "module_summary": ModuleSummary,
    "slurm_info": SLURMInfo,
    "unused_params": LogUnusedParametersOnce,
    "hf_checkpoint": HuggingFaceCheckpointCallback,
}


def default_callbacks(switches: Mapping[str, bool] | None = None) -> list[pl.Callback]:
    """Fresh instances of the default callbacks.

    Args:
        switches: Name to whether to include it; those not named are included.

    Raises:
        ValueError: If a name is unknown.

    Example:
        >>> len(default_callbacks({"env_dump": False})) == len(DEFAULTS) - 1
        True
    """
    unknown = sorted(set(switches or {}) - set(DEFAULTS))
    if unknown:
        raise ValueError(f"Unknown default callbacks {unknown}; there are {list(DEFAULTS)}.")
    return [make() for name, make in DEFAULTS.items() if (switches or {}).get(name, True)]
