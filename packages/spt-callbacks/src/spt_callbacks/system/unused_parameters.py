"""Name the parameters that get no gradient."""

from __future__ import annotations

from functools import partial
from typing import Any

import lightning as pl
from loguru import logger
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils.hooks import RemovableHandle


class LogUnusedParametersOnce(pl.Callback):
    """Say which trainable parameters got no gradient in the first batch of this process.

    Such a parameter is often a mistake, and stops DistributedDataParallel. Watching costs one
    hook a parameter for one batch. Sharded parameters (FSDP2) get their gradients another way
    and are not checked, which is said.

    Args:
        verbose: Also say so when every parameter got a gradient.

    Attributes:
        unused: Names found; ``None`` before the first batch and where nothing was checked.
    """

    def __init__(self, verbose: bool | None = None) -> None:
        self.verbose = verbose
        self.unused: list[str] | None = None
        self._waiting: set[str] | None = None
        self._handles: list[RemovableHandle] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Watch the trainable parameters."""
        trained = {name: p for name, p in pl_module.named_parameters() if p.requires_grad}
        self.unused, self._waiting = None, None
        if any(isinstance(p, DTensor) for p in trained.values()):
            logger.info("LogUnusedParametersOnce: parameters are sharded and were not checked.")
            return
        self._waiting = set(trained)
        for name, parameter in trained.items():
            hook = partial(self._got_gradient, name)
            self._handles.append(parameter.register_post_accumulate_grad_hook(hook))

    def _got_gradient(self, name: str, parameter: Tensor) -> None:
        if self._waiting is not None:
            self._waiting.discard(name)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Report, once."""
        if self._waiting is None:
            return
        self.unused, self._waiting = sorted(self._waiting), None
        self._unhook()
        if not trainer.is_global_zero:
            return
        if self.unused:
            logger.warning(
                f"{len(self.unused)} trainable parameters got no gradient in the first batch: "
                f"{', '.join(self.unused)}"
            )
        elif self.verbose:
            logger.info("Every trainable parameter got a gradient in the first batch.")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take the hooks away, if the run ended before its first batch did."""
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
