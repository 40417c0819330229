"""Activations of inner layers, for every callback that reads by key."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from functools import partial
from typing import Any

import lightning as pl
from lightning.fabric.utilities.apply_func import apply_to_collection  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class EmbeddingCache(pl.Callback):
    """Keep the latest output of named submodules and offer it under the submodule's name.

    With ``EmbeddingCache(["backbone.layer3"])``, ``OnlineProbe(input="backbone.layer3", ...)``
    probes that layer. The callback moves to the front of the Trainer's list, so that every other
    one finds the activations in the step's outputs. They are detached, and those of one batch are
    gone when the next begins. A submodule that runs several times in a step leaves its last output.

    Args:
        module_names: Dotted names of submodules.
        add_to_forward_output: Put the activations into what the step returned, which must then
            be a dict; otherwise they are only in :attr:`embeddings`.

    Attributes:
        embeddings: The latest output of each submodule that ran, by name.

    Raises:
        ValueError: If no name is given; in ``setup``, if a name is no submodule.
    """

    def __init__(self, module_names: Sequence[str], add_to_forward_output: bool = True) -> None:
        if isinstance(module_names, str) or not module_names:
            raise ValueError(f"`module_names` must be a list of names, got {module_names!r}.")
        self.module_names = tuple(module_names)
        self.add_to_forward_output = add_to_forward_output
        self.embeddings: dict[str, Any] = {}
        self._handles: list[RemovableHandle] = []

    @property
    def state_key(self) -> str:
        """Distinguishes caches of different submodules."""
        return f"EmbeddingCache[module_names={','.join(self.module_names)}]"

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Hook the submodules, and come first among the callbacks."""
        known = dict(pl_module.named_modules())
        unknown = [name for name in self.module_names if name not in known]
        if unknown:
            raise ValueError(
                f"EmbeddingCache knows no submodule {unknown} in {type(pl_module).__name__}; "
                f"there are {sorted(filter(None, known))[:20]}."
            )
        self._unhook()
        for name in self.module_names:
            self._handles.append(known[name].register_forward_hook(partial(self._keep, name)))
        callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        callbacks.insert(0, callbacks.pop(callbacks.index(self)))

    def _keep(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        self.embeddings[name] = apply_to_collection(output, Tensor, Tensor.detach)

    def _forget(self, *args: Any, **kwargs: Any) -> None:
        self.embeddings.clear()

    on_train_batch_start = _forget
    on_validation_batch_start = _forget
    on_test_batch_start = _forget
    on_predict_batch_start = _forget

    def _offer(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not self.add_to_forward_output:
            return
        if not isinstance(outputs, MutableMapping):
            raise TypeError(
                "EmbeddingCache adds to the dict that a step returns, got "
                f"{type(outputs).__name__}; return a dict, or pass `add_to_forward_output=False`."
            )
        taken = sorted(self.embeddings.keys() & outputs.keys())
        if taken:
            raise ValueError(
                f"The step already returns {taken}, the names of cached submodules; rename them."
            )
        outputs.update(self.embeddings)

    on_train_batch_end = _offer
    on_validation_batch_end = _offer
    on_test_batch_end = _offer
    on_predict_batch_end = _offer

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take the hooks away."""
        self._unhook()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Take the hooks away."""
        self._unhook()

    def _unhook(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.embeddings.clear()
