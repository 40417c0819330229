"""Look at a configuration before it costs anything: build it, take one batch, show the shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as pl
import torch
from lightning.pytorch.callbacks import Checkpoint, ModelSummary, ProgressBar
from omegaconf import OmegaConf, open_dict
from torch import Tensor

from spt_manager.allow import require_allowed
from spt_manager.build import build, build_trainer, callbacks_of_module
from spt_manager.launch import compose_file, existing, manager_of

HERE = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"}
"""This machine, which may have none of the devices that the run is for."""


def check_config(
    config: str | Path,
    overrides: Sequence[str] = (),
    *,
    meta: bool = False,
    allow: Sequence[str] | None = None,
) -> list[tuple[str, str]]:
    """Build everything that a configuration names, and run one batch of it on the CPU.

    Nothing is saved or logged.

    Args:
        config: A YAML file.
        overrides: Hydra overrides, ``key=value``.
        meta: Build the module without memory for its parameters, and run no batch.
        allow: Packages whose names the configuration may use; ``None`` for any.

    Returns:
        What was found: name and description of parts, of the batch and of the step's output.

    Raises:
        BuildError: If a ``_target_`` fails, with its path in the configuration.
        FileNotFoundError: If there is no such file.
        ConfigError: If a part is missing.
    """
    parts = _parts(config, overrides, allow)
    trainer, waiting = build_trainer(parts["trainer"])
    with torch.device("meta" if meta else "cpu"):
        module = build("module", parts["module"], pl.LightningModule)
    data = build("data", parts["data"], pl.LightningDataModule)
    callbacks = [*trainer.callbacks, *callbacks_of_module(waiting, module)]  # type: ignore[attr-defined]
    sizes = [(f"module.{name}", _size(part)) for name, part in module.named_children()]
    found = [("module", f"{type(module).__name__}, {_size(module)}"), *sizes]
    found += [("data", type(data).__name__), ("trainer", f"{len(callbacks)} callbacks")]
    return found if meta else found + _one_batch(module, data, callbacks)


def build_data(
    config: str | Path, overrides: Sequence[str] = (), *, allow: Sequence[str] | None = None
) -> pl.LightningDataModule:
    """Build the data of a configuration, and nothing else.

    Args:
        config: A YAML file.
        overrides: Hydra overrides, ``key=value``.
        allow: Packages whose names the configuration may use; ``None`` for any.

    Raises:
        BuildError: If a ``_target_`` fails, with its path in the configuration.
        FileNotFoundError: If there is no such file.
        ConfigError: If a part is missing.
    """
    return build("data", _parts(config, overrides, allow)["data"], pl.LightningDataModule)


def _parts(
    config: str | Path, overrides: Sequence[str], allow: Sequence[str] | None
) -> dict[str, Any]:
    composed = compose_file(existing(config), overrides)
    if allow is not None:
        require_allowed(composed, allow)
    if OmegaConf.is_dict(composed.get("trainer")):
        with open_dict(composed):
            composed.trainer.update(HERE)
    return manager_of(composed)._given


def _one_batch(
    module: pl.LightningModule, data: Any, callbacks: list[pl.Callback]
) -> list[tuple[str, str]]:
    seen = _Shapes()
    unneeded = (Checkpoint, ProgressBar, ModelSummary)
    own = [entry for entry in callbacks if not isinstance(entry, unneeded)]
    once = pl.Trainer(
        accelerator="cpu",
        devices=1,
        fast_dev_run=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*own, seen],
    )
    once.fit(module, datamodule=data)
    return seen.found


class _Shapes(pl.Callback):
    """Notes what comes in and goes out."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self.found += [*shapes("batch", batch), *shapes("step", outputs)]

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self.found += [*shapes("validation batch", batch), *shapes("validation step", outputs)]


def shapes(name: str, value: Any) -> list[tuple[str, str]]:
    """Names and shapes of the tensors in a nested value.

    Example:
        >>> shapes("batch", {"image": torch.zeros(2, 3), "views": [torch.zeros(1)]})
        [('batch.image', 'float32 (2, 3)'), ('batch.views.0', 'float32 (1,)')]
    """
    if isinstance(value, Tensor):
        return [(name, f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}")]
    if isinstance(value, Mapping):
        return [entry for key, item in value.items() for entry in shapes(f"{name}.{key}", item)]
    if isinstance(value, (list, tuple)):
        return [entry for i, item in enumerate(value) for entry in shapes(f"{name}.{i}", item)]
    return [] if value is None else [(name, type(value).__name__)]


def _size(part: torch.nn.Module) -> str:
    total = sum(p.numel() for p in part.parameters())
    trained = sum(p.numel() for p in part.parameters() if p.requires_grad)
    return f"{total:,} parameters" + ("" if trained == total else f", {trained:,} trained")
