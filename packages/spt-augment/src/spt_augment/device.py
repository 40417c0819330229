"""Moving a batch to a device."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ToDevice(nn.Module):
    """Move every tensor of a batch, at any depth, to a device.

    Args:
        device: The device; ``None`` for the current accelerator, or the CPU without one.
        non_blocking: Do not wait for copies from pinned memory.
    """

    def __init__(self, device: str | torch.device | None = None, non_blocking: bool = True) -> None:
        super().__init__()
        self.device = device
        self.non_blocking = non_blocking

    def forward(self, batch: object) -> object:
        """The batch on the device; containers are rebuilt, other values pass through."""
        if isinstance(batch, Tensor):
            device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
            return batch.to(device, non_blocking=self.non_blocking)
        if isinstance(batch, dict):
            return {key: self(value) for key, value in batch.items()}
        if isinstance(batch, tuple) and hasattr(batch, "_fields"):
            return type(batch)(*(self(value) for value in batch))
        if isinstance(batch, (list, tuple)):
            return type(batch)(self(value) for value in batch)
        return batch
