"""What callbacks have in common of which a Trainer can have several."""

from __future__ import annotations

from typing import Any

import lightning as pl

from spt_callbacks.restoring import tell_what_is_missing


class NamedCallback(pl.Callback):
    """Told apart from others of its class by its name, in checkpoints and in messages."""

    name: str

    @property
    def state_key(self) -> str:
        """Distinguishes callbacks of different names."""
        return f"{type(self).__name__}[name={self.name}]"

    @property
    def caller(self) -> str:
        """How messages call this callback."""
        return f"{type(self).__name__} {self.name!r}"

    @property
    def is_stateful(self) -> bool:
        """Whether checkpoints hold something of this callback."""
        return False

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Tell if the checkpoint knows nothing of this callback."""
        tell_what_is_missing(trainer, checkpoint)
