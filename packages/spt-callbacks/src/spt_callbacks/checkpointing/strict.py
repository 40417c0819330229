"""Load a checkpoint into a module that it does not fit exactly."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import lightning as pl
from loguru import logger
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


@dataclass
class LoadReport:
    """What a state dict had for a module.

    Attributes:
        loaded: Keys taken from it.
        missing: Keys that only the module has; they keep its values.
        unexpected: Keys that only the state dict has.
        mis_shaped: Key to (shape in the state dict, shape in the module).
    """

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mis_shaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether everything fitted."""
        return not (self.missing or self.unexpected or self.mis_shaped)

    def __str__(self) -> str:
        total = len(self.loaded) + len(self.missing) + len(self.mis_shaped)
        lines = [f"loaded {len(self.loaded)} of {total} tensors"]
        for name in ("missing", "unexpected"):
            if keys := getattr(self, name):
                lines.append(f"{name}: {', '.join(keys)}")
        for key, (given, wanted) in self.mis_shaped.items():
            lines.append(f"mis-shaped: {key} is {given} in the checkpoint, {wanted} in the module")
        return "\n".join(lines)


class StrictCheckpointCallback(pl.Callback):
    """Decide whether ``trainer.fit(..., ckpt_path=...)`` takes a checkpoint that fits in part.

    With ``strict=False``, tensors whose name and shape fit are loaded, the module's own values
    stay for the others, and a report names them. If anything differed, the optimizers start with
    the checkpoint's settings but empty moments, since those belong to other parameters.

    Args:
        strict: ``True`` leaves loading as it is: an error names every difference.

    Attributes:
        report: What the last load found; ``None`` before, and with ``strict=True``.
    """

    def __init__(self, strict: bool = True) -> None:
        self.strict = strict
        self.report: LoadReport | None = None
        self._handle: RemovableHandle | None = None
        self._checkpoint: dict[str, Any] | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Fit what is loaded to the module, before it is loaded."""
        self._unhook()
        if not self.strict:
            self._handle = pl_module.register_load_state_dict_pre_hook(self._fit)

    def _fit(self, module: nn.Module, state: dict[str, Any], *args: Any) -> None:
        self.report = fit_state(state, module)
        logger.log("INFO" if self.report.complete else "WARNING", f"Checkpoint: {self.report}")

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep what the optimizers will be restored from."""
        self._unhook()
        self._checkpoint = checkpoint

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Empty the moments, now that there are optimizers and before they are restored."""
        checkpoint, self._checkpoint = self._checkpoint, None
        if checkpoint is None or self.report is None or self.report.complete:
            return
        saved = checkpoint.get("optimizer_states", [])
        checkpoint["optimizer_states"] = [
            without_moments(optimizer.state_dict(), saved[i] if i < len(saved) else {})
            for i, optimizer in enumerate(trainer.optimizers)
        ]

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take the hook away."""
        self._unhook()

    def _unhook(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None


def fit_state(state: dict[str, Any], module: nn.Module) -> LoadReport:
    """Change a state dict to exactly a module's keys and shapes, in place.

    Args:
        state: Loses what the module has no place for, gains the module's own values.
        module: Only read.
    """
    own, report = module.state_dict(), LoadReport()
    for key in [key for key in state if key not in own]:
        report.unexpected.append(key)
        del state[key]
    for key, value in own.items():
        if key not in state:
            report.missing.append(key)
        elif _shape(state[key]) != _shape(value):
            report.mis_shaped[key] = (_shape(state[key]), _shape(value))
        else:
            report.loaded.append(key)
            continue
        state[key] = value
    return report


def without_moments(fresh: dict[str, Any], saved: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's fresh state with the saved settings of its groups, where these correspond."""
    groups, old = fresh["param_groups"], saved.get("param_groups", [])
    if len(groups) == len(old):
        groups = [
            {**new, **{k: v for k, v in was.items() if k != "params"}}
            for new, was in zip(groups, old, strict=True)
        ]
    return {"state": {}, "param_groups": groups}


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, Tensor) else ()
