"""What every transform shares: keys, checks, and where its random numbers come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spt_augment._random import current_rank, drawing

Batch = dict[str, Any]


class BatchTransform(nn.Module):
    """A transform of a collated batch; subclasses write :meth:`transform`.

    Used alone, in a plain loop, it draws from a generator keyed by ``seed``, the rank and the
    number of calls so far; :func:`spt_augment.apply_gpu_transform` keys it by the step.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seed = 0
        self.calls = 0

    def forward(self, batch: Batch) -> Batch:
        """Transform a batch; the given one is left as it is."""
        if not isinstance(batch, Mapping):
            raise TypeError(
                f"{type(self).__name__} takes a batch dict, got {type(batch).__name__}."
            )
        with drawing(self.seed, current_rank(), "loop", self.calls) as generator:
            self.calls += 1
            return self.transform(dict(batch), generator)

    def transform(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the transformed batch; may write into this shallow copy's keys."""
        raise NotImplementedError


class ImageTransform(BatchTransform):
    """A transform of the images of a batch; subclasses write :meth:`images`.

    Args:
        source: Key of the images, float in [0, 1] or uint8, shape ``(B, C, H, W)``.
        target: Key of the result, float.
    """

    def __init__(self, source: str = "image", target: str = "image") -> None:
        super().__init__()
        self.source = source
        self.target = target

    def transform(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Replace the images."""
        images = images_of(batch, self.source, type(self).__name__)
        batch[self.target] = self.images(images, generator)
        return batch

    def images(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Transform float images ``(B, C, H, W)``."""
        raise NotImplementedError


def images_of(batch: Batch, key: str, caller: str) -> Tensor:
    """The images of a batch as float in [0, 1].

    Args:
        batch: A collated batch.
        key: Where its images are.
        caller: Who asks, for messages.

    Raises:
        KeyError: If the key is missing.
        TypeError: If the value is not a tensor of floats or uint8.
        ValueError: If its shape is not ``(B, C, H, W)`` with 1, 3 or 4 channels.
    """
    if key not in batch:
        raise KeyError(f"{caller} needs the key {key!r}; the batch holds {sorted(batch)}.")
    images = batch[key]
    if not isinstance(images, Tensor):
        raise TypeError(f"{caller} needs a tensor at {key!r}, got {type(images).__name__}.")
    if images.ndim != 4:
        raise ValueError(
            f"{caller} needs images of shape (B, C, H, W) at {key!r}, got {tuple(images.shape)}."
        )
    if images.shape[1] not in (1, 3, 4) and images.shape[-1] in (1, 3, 4):
        raise ValueError(
            f"{caller} needs channels first, (B, C, H, W), at {key!r}; {tuple(images.shape)} looks "
            "like channels last. Use images.permute(0, 3, 1, 2)."
        )
    if images.dtype == torch.uint8:
        return images.float() / 255
    if not images.is_floating_point():
        raise TypeError(f"{caller} needs float or uint8 images at {key!r}, got {images.dtype}.")
    return images


def check_probability(name: str, p: float) -> None:
    """Refuse a probability outside [0, 1].

    Raises:
        ValueError: If ``p`` is outside.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"`{name}` must be in [0, 1], got {p}.")


def choose(chosen: Tensor, changed: Tensor, images: Tensor) -> Tensor:
    """Changed images where ``chosen``, the others as they are."""
    mask = chosen.to(images.device, non_blocking=True)[:, None, None, None]
    return torch.where(mask, changed, images)
