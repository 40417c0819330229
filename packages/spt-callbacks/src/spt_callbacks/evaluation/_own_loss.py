"""A probe that reads what it likes of a step and brings its own loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as pl
from lightning.fabric.utilities.apply_func import apply_to_collection  # type: ignore[attr-defined]
from torch import Tensor, nn

from spt_callbacks.keys import expose


def made_by(
    probe: nn.Module, outputs: Any, batch: Any, pl_module: pl.LightningModule, caller: str
) -> Mapping[str, Any]:
    """What ``probe(batch, outputs, pl_module)`` makes of a step, whose tensors it sees detached.

    All but ``loss`` is put into the step's dict, for later callbacks to read.

    Raises:
        TypeError: If it is no mapping.
        ValueError: If the step has a value of the same name.
    """
    made = probe(batch, apply_to_collection(outputs, Tensor, Tensor.detach), pl_module)
    if not isinstance(made, Mapping):
        raise TypeError(
            f"{caller} has no `loss`, so its probe must return a mapping, got "
            f"{type(made).__name__}."
        )
    for name, value in made.items():
        if name != "loss":
            expose(outputs, name, apply_to_collection(value, Tensor, Tensor.detach), caller)
    return made


def loss_in(made: Mapping[str, Any], caller: str) -> Tensor:
    """The scalar under ``loss``.

    Raises:
        TypeError: If there is none.
    """
    loss = made.get("loss")
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise TypeError(
            f"{caller} has no `loss`, so its probe must return a scalar tensor under 'loss' in "
            f"training, got {sorted(made)}."
        )
    return loss
