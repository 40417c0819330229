"""Log from anywhere: ``log("my_value", x)`` deep inside a loss or a layer."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import lightning as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from spt_callbacks.training.monitored import log_now

_modules: weakref.WeakValueDictionary[str, pl.LightningModule] = weakref.WeakValueDictionary()


class ModuleRegistryCallback(pl.Callback):
    """Make the running module known to :func:`log` and :func:`log_dict`, from setup to teardown.

    Args:
        name: Name to know it by, for programs that run several Trainers.
    """

    def __init__(self, name: str = "default") -> None:
        self.name = name

    @property
    def state_key(self) -> str:
        """Distinguishes names."""
        return f"ModuleRegistryCallback[name={self.name}]"

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Make the module known."""
        _modules[self.name] = pl_module

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Forget the module."""
        if _modules.get(self.name) is pl_module:
            del _modules[self.name]


def get_module(name: str = "default") -> pl.LightningModule:
    """The module that runs under a name.

    Raises:
        RuntimeError: If none does.
    """
    module = _modules.get(name)
    if module is None:
        raise RuntimeError(
            f"No module runs under the name {name!r} (running: {sorted(_modules)}); add "
            "`ModuleRegistryCallback()` to the Trainer's callbacks."
        )
    return module


def log(name: str, value: Any, module_name: str = "default", **kwargs: Any) -> None:
    """Log a value to the running module.

    Where Lightning takes logged values (from a step to the end of its epoch) this is
    ``pl_module.log``; elsewhere the value goes to the loggers at once. None is dropped.

    Args:
        name: Name of the value.
        value: A number, a scalar tensor, or, where Lightning takes it, a metric.
        module_name: Name given to :class:`ModuleRegistryCallback`.
        **kwargs: Passed to ``pl_module.log``.

    Raises:
        RuntimeError: If no module runs under that name.
    """
    log_dict({name: value}, module_name, **kwargs)


def log_dict(values: Mapping[str, Any], module_name: str = "default", **kwargs: Any) -> None:
    """Log several values to the running module; see :func:`log`."""
    module = get_module(module_name)
    try:
        module.log_dict(values, **kwargs)
        return
    except MisconfigurationException as error:
        if "`self.log()`" not in str(error):  # not a matter of the place: the caller's to hear
            raise
    log_now(module.trainer, {name: _number(value) for name, value in values.items()})


def _number(value: Any) -> float:
    return float(value.detach()) if isinstance(value, Tensor) else float(value)
