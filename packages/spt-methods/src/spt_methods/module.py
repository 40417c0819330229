"""The LightningModule of this project: components, and a forward function that returns a dict."""

from __future__ import annotations

import importlib
import types
from collections.abc import Callable, Mapping
from typing import Any

import lightning as pl
from loguru import logger
from spt_augment import apply_gpu_transform, reject_module_gpu_transform
from torch import Tensor

from spt_methods.optim import configure, normalise_optim
from spt_methods.views import Stage, State

Forward = Callable[[Any, Any, Stage], State]

DEFAULT_OPTIM = {"optimizer": "AdamW", "scheduler": "CosineAnnealingLR"}


class MissingLossError(KeyError):
    """A forward function returned no ``loss`` in training."""

    def __str__(self) -> str:
        return str(self.args[0])


class Module(pl.LightningModule):
    """Any components and a forward function ``(self, batch, stage) -> dict``.

    The forward function is called in every step with the stage ``"fit"``, ``"validate"``, ``"test"``
    or ``"predict"``. The dict it returns is the step's output: in training it holds ``loss``;
    callbacks read the rest by name. There is one optimizer, run by Lightning, so accumulation,
    clipping, precision and ``max_steps`` work as always.

    Args:
        forward: A function, or its dotted path; ``None`` if a subclass defines ``forward``.
        hparams: Hyper-parameters to record.
        **components: Attributes: modules, losses, and ``optim``. Left out, ``optim`` is AdamW with
            a cosine schedule over the run; see :func:`spt_methods.optim.normalise_optim`.

    Raises:
        TypeError: If ``forward`` cannot be called or ``optim`` is of the wrong kind.
        ValueError: If there is nothing at the dotted path, or ``optim`` has unknown keys.

    Example:
        >>> import torch
        >>> def forward(self, batch, stage):
        ...     embedding = self.backbone(batch["image"])
        ...     return {"embedding": embedding, "loss": embedding.square().mean()}
        >>> module = Module(forward=forward, backbone=torch.nn.Linear(4, 2), optim="SGD")
        >>> sorted(module({"image": torch.ones(3, 4)}, "fit"))
        ['embedding', 'loss']
    """

    def __init__(
        self,
        *,
        forward: Forward | str | None = None,
        hparams: Mapping[str, Any] | None = None,
        **components: Any,
    ) -> None:
        super().__init__()
        if isinstance(forward, str):
            forward = _locate(forward)
        if forward is not None and not callable(forward):
            raise TypeError(
                "`forward` must be a function of (self, batch, stage) or its dotted path, got "
                f"{type(forward).__name__}."
            )
        if forward is not None:
            self.forward = types.MethodType(forward, self)  # type: ignore[method-assign]
        self.optim = normalise_optim(components.pop("optim", DEFAULT_OPTIM))
        if hparams is not None:
            self.save_hyperparameters(dict(hparams))
        for name, value in components.items():
            setattr(self, name, value)

    def training_step(self, batch: Any, batch_idx: int) -> State:
        """One step; the forward function's dict, which holds ``loss``."""
        state = self._state(batch, "fit")
        loss = state.get("loss")
        if not isinstance(loss, Tensor) or loss.ndim != 0:
            got = "nothing" if loss is None else describe(loss)
            raise MissingLossError(
                f"In training, {self._forward_name()} must return a scalar tensor under 'loss', got "
                f"{got}; it returned {sorted(map(str, state))}."
            )
        self._log_loss(state, "fit")
        return state

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> State:
        """The forward function's dict; its loss is logged if it has one."""
        state = self._state(batch, "validate")
        self._log_loss(state, "validate")
        return state

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> State:
        """The forward function's dict; its loss is logged if it has one."""
        state = self._state(batch, "test")
        self._log_loss(state, "test")
        return state

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> State:
        """The forward function's dict."""
        return self._state(batch, "predict")

    def _state(self, batch: Any, stage: Stage) -> State:
        state = self(batch, stage)
        if not isinstance(state, Mapping):
            raise TypeError(f"{self._forward_name()} must return a dict, got {describe(state)}.")
        return dict(state)

    def _forward_name(self) -> str:
        name = getattr(self.forward, "__name__", type(self.forward).__name__)
        return f"the forward function {name!r} of {type(self).__name__}"

    def _log_loss(self, state: State, stage: Stage) -> None:
        if "loss" in state:
            self.log(
                f"{stage}/loss",
                state["loss"].detach(),
                on_step=stage == "fit",
                on_epoch=True,
                prog_bar=True,
            )

    def configure_optimizers(self) -> Any:
        """One optimizer over the trainable parameters, and its schedule."""
        if self.optim is None:
            self.automatic_optimization = False  # Lightning's loop would look for an optimizer
            logger.info(f"{type(self).__name__} has no optimizer; nothing is trained.")
        return configure(self, self.optim)

    def on_train_start(self) -> None:
        """Refuse a ``gpu_transform`` on the module."""
        reject_module_gpu_transform(self)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Log the learning rate."""
        optimizers = self.trainer.optimizers
        if optimizers and optimizers[0].param_groups:
            self.log("hparams/lr", optimizers[0].param_groups[0]["lr"], on_step=True)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Apply the ``gpu_transform`` of the data."""
        return apply_gpu_transform(self, batch, dataloader_idx)


def describe(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"


def _locate(path: str) -> Forward:
    module, _, name = path.rpartition(".")
    try:
        found: Forward = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"There is no forward function at {path!r}: {error}.") from error
    return found
