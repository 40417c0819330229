"""What transforms drew: numbers on the host, and the same numbers where the images are.

Everything is drawn on the host and travels in one copy that is not waited for. So the numbers
are the same on every device, and the host knows which rows to touch without asking the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

ALIGNMENT = 16

Draws = dict[str, Tensor]
"""Names to values on the host, each with one row per sample; ``batch_prob`` says who is changed."""


@dataclass(frozen=True)
class Parameters:
    """The draws of one transform, twice: ``host`` to decide by, ``device`` to compute with."""

    host: Draws
    device: Draws

    def __getitem__(self, name: str) -> Tensor:
        """A value on the device."""
        return self.device[name]

    def chosen(self) -> Tensor:
        """Which rows are changed, bool ``(B,)`` on the host."""
        return self.host["batch_prob"]

    def slice(self, start: int, stop: int) -> Parameters:
        """Those of some consecutive rows."""
        host = {name: value[start:stop] for name, value in self.host.items()}
        if self.host is self.device:
            return Parameters(host, host)
        return Parameters(host, {k: value[start:stop] for k, value in self.device.items()})

    def take(self, rows: Tensor, rows_on_device: Tensor) -> Parameters:
        """Those of the given rows."""
        host = {name: value[rows] for name, value in self.host.items()}
        if self.host is self.device:
            return Parameters(host, host)
        return Parameters(host, {k: value[rows_on_device] for k, value in self.device.items()})


def send(value: Tensor, device: torch.device) -> Tensor:
    """A host tensor on the device, without waiting for the copy."""
    if device.type == "cpu":
        return value
    pinned = value.pin_memory() if device.type == "cuda" else value
    return pinned.to(device, non_blocking=True)


def place(draws: Sequence[Draws], device: torch.device) -> list[Parameters]:
    """Parameters of several transforms, in a single copy to the device."""
    if device.type == "cpu":
        return [Parameters(one, one) for one in draws]
    values = [value for one in draws for value in one.values()]
    if not values:
        return [Parameters(one, {}) for one in draws]
    pieces = [_bytes(value) for value in values]
    sizes = [len(piece) for piece in pieces]
    packed = send(torch.cat(pieces), device)
    parts = iter(packed.split(sizes))
    return [
        Parameters(one, {name: _unpack(next(parts), value) for name, value in one.items()})
        for one in draws
    ]


def _bytes(value: Tensor) -> Tensor:
    """A tensor's bytes, and zeros up to where a number of any type may begin."""
    flat = value.contiguous().view(-1).view(torch.uint8)
    return F.pad(flat, (0, -len(flat) % ALIGNMENT))


def _unpack(part: Tensor, like: Tensor) -> Tensor:
    """The bytes as what they were: a view, which needs no kernel."""
    return part[: like.numel() * like.element_size()].view(like.dtype).view(like.shape)


def on_chosen_rows(
    images: Tensor, given: Parameters, change: Callable[[Tensor, Parameters], Tensor]
) -> Tensor:
    """Change the chosen rows of images that the caller owns; the others are not even read."""
    chosen = given.chosen()
    if not bool(chosen.any()):
        return images
    if bool(chosen.all()):
        return change(images, given)
    rows = chosen.nonzero()[:, 0]
    where = send(rows, images.device)
    return images.index_copy_(0, where, change(images[where], given.take(rows, where)))


def column(value: Tensor, images: Tensor) -> Tensor:
    """One number per row, shaped to meet ``(B, C, H, W)`` in the dtype of the images."""
    return value.to(images.dtype).view(-1, *[1] * (images.ndim - 1))
