"""What the callbacks of this project count between two batches, such as the loss of an epoch so far.

A callback's ``state_dict`` says what it is; these are the sums and gradients it is in the middle of.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning as pl
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

OURS = ("spt_callbacks", "spt_methods")


def running_counts(trainer: pl.Trainer) -> dict[str, Any]:
    """Private numbers and tensors of our callbacks, and gradients that wait in their networks."""
    state: dict[str, Any] = {}
    for path, owner in _parts_of(trainer):
        if isinstance(owner, nn.Module):
            found = ((name, parameter.grad) for name, parameter in owner.named_parameters())
            grads = {name: grad.clone() for name, grad in found if grad is not None}
            state.update({path: grads} if grads else {})
        else:
            state[path] = {name: _copied(value) for name, value in _plain(owner)}
    return state


def pending_gradients(module: pl.LightningModule) -> dict[str, Tensor]:
    """Gradients between two batches of a module that steps its optimizers itself.

    Under Lightning's own optimization there are none where a run can be continued.
    """
    if module.automatic_optimization:
        return {}
    found = ((name, parameter.grad) for name, parameter in module.named_parameters())
    return {name: g.clone() for name, g in found if g is not None and not isinstance(g, DTensor)}


def restore_pending_gradients(module: pl.LightningModule, gradients: dict[str, Tensor]) -> None:
    """Put them back."""
    for name, parameter in module.named_parameters():
        if name in gradients:
            parameter.grad = gradients[name].to(parameter.device)


def restore_running_counts(trainer: pl.Trainer, state: dict[str, Any]) -> None:
    """Put them back where they were."""
    device = trainer.strategy.root_device
    for path, owner in _parts_of(trainer):
        found = state.get(path, {})
        if isinstance(owner, nn.Module):
            for name, parameter in owner.named_parameters():
                if name in found:
                    parameter.grad = found[name].to(parameter.device)
            continue
        for name in found.keys() & vars(owner).keys():
            value = found[name]
            setattr(owner, name, value.to(device) if isinstance(value, Tensor) else value)


def _parts_of(trainer: pl.Trainer) -> Iterator[tuple[str, Any]]:
    """Our callbacks, and the parts of ours and the networks that they are made of."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if not _is_ours(callback):
            continue
        yield callback.state_key, callback
        for name, part in list(vars(callback).items()):
            if _is_ours(part):
                yield f"{callback.state_key}.{name}", part
            for deeper, inner in [("", part), *getattr(part, "__dict__", {}).items()]:
                if isinstance(inner, nn.Module) and (inner is part or _is_ours(part)):
                    yield f"{callback.state_key}.{name}.{deeper}", inner


def _is_ours(value: Any) -> bool:
    return type(value).__module__.split(".")[0] in OURS and not isinstance(value, type)


def _plain(owner: Any) -> list[tuple[str, Any]]:
    kinds = (bool, int, float, type(None), Tensor)
    return [(k, v) for k, v in vars(owner).items() if k.startswith("_") and isinstance(v, kinds)]


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value
