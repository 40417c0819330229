"""What every transform shares: keys, checks, records, and where its random numbers come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from spt_augment._parameters import Draws, Parameters, place
from spt_augment._random import Drawing

Batch = dict[str, Any]


class BatchTransform(Drawing):
    """A transform of a collated batch; subclasses write :meth:`transform`.

    Used alone, in a plain loop, it draws from a generator keyed by the run's seed, the rank, the
    instance and its calls so far, which its state dict holds; set ``seed`` for another seed than
    torch's. :func:`spt_augment.apply_gpu_transform` keys it by the step.
    """

    def forward(self, batch: Batch) -> Batch:
        """Transform a batch, without gradients; the given one is left as it is."""
        if not isinstance(batch, Mapping):
            raise TypeError(
                f"{type(self).__name__} takes a batch dict, got {type(batch).__name__}."
            )
        with self.drawing() as generator, torch.no_grad():
            return self.transform(dict(batch), generator)

    def transform(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the transformed batch; may write into this shallow copy's keys."""
        raise NotImplementedError

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the fused passes of every chain below, on any device.

        Unlike ``nn.Module.compile`` this leaves the drawing and the dictionaries to Python.

        Args:
            *args: None are taken.
            **kwargs: ``mode`` for ``torch.compile``.

        Raises:
            TypeError: If another option is given.
        """
        mode = kwargs.pop("mode", None)
        if args or kwargs:
            raise TypeError(f"`compile` takes only `mode`, got {[*args, *kwargs]}.")
        for module in self.modules():
            if isinstance(module, BatchTransform):
                module.compile_passes(mode)

    def compile_passes(self, mode: str | None = None) -> None:
        """Compile this transform's own passes; only a chain has some."""


class ImageTransform(BatchTransform):
    """A transform of the images of a batch; subclasses write :meth:`draw` and :meth:`change`.

    What was drawn is recorded in the batch under the name of the class; a second use of a class
    is recorded with the suffix ``_0``, a third with ``_1``.

    Args:
        source: Key of the images, float in [0, 1] or uint8, shape ``(B, C, H, W)``; or of a dict
            or a list of such tensors, which are transformed one by one.
        target: Key of the result, float.
    """

    def __init__(self, source: str = "image", target: str = "image") -> None:
        super().__init__()
        self.source = source
        self.target = target

    def transform(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Replace the images and record what was drawn."""
        if self.source not in batch:
            raise missing(self.source, type(self).__name__, batch)
        batch[self.target], drawn = self._each(batch[self.source], generator)
        batch[free_name(type(self).__name__, batch)] = drawn
        return batch

    def _each(self, value: Any, generator: torch.Generator) -> tuple[Any, Any]:
        """The result and the record of a tensor, or of each tensor of a container."""
        if isinstance(value, Mapping):
            pairs = {key: self._each(item, generator) for key, item in value.items()}
            return {k: pair[0] for k, pair in pairs.items()}, {k: p[1] for k, p in pairs.items()}
        if isinstance(value, (list, tuple)):
            both = [self._each(item, generator) for item in value]
            return [pair[0] for pair in both], [pair[1] for pair in both]
        images = check_images(value, self.source, type(self).__name__)
        drawn = self.draw(len(images), images.shape[-2], images.shape[-1], generator)
        (given,) = place([drawn], images.device)
        return as_float(self.change(images, given)), record(given)

    def draw(self, n: int, height: int, width: int, generator: torch.Generator) -> Draws:
        """Draw for ``n`` images of a size, on the host."""
        raise NotImplementedError

    def change(self, images: Tensor, given: Parameters) -> Tensor:
        """Transform images ``(B, C, H, W)`` by given draws; the images are left as they are."""
        return self.paint(own(images), given)

    def paint(self, images: Tensor, given: Parameters) -> Tensor:
        """The same on float images that may be written to."""
        raise NotImplementedError

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after the transform."""
        return height, width


def missing(key: str, caller: str, batch: Mapping[str, Any]) -> KeyError:
    """The error of an absent key, which names those that are there."""
    return KeyError(f"{caller} needs the key {key!r}; the batch holds {sorted(batch)}.")


def record(given: Parameters) -> Draws:
    """What a batch says of a transform: the draws without those that only serve to compute."""
    return {name: value for name, value in given.device.items() if not name.startswith("_")}


def free_name(name: str, batch: Mapping[str, Any]) -> str:
    """``name``, or the first of ``name_0``, ``name_1``, ... that the batch does not hold."""
    if name not in batch:
        return name
    suffix = 0
    while f"{name}_{suffix}" in batch:
        suffix += 1
    return f"{name}_{suffix}"


def check_images(images: Any, key: str, caller: str) -> Tensor:
    """A tensor of images, checked.

    Args:
        images: What the batch holds.
        key: Where.
        caller: Who asks, for messages.

    Raises:
        TypeError: If the value is not a tensor of floats or uint8.
        ValueError: If its shape is not ``(B, C, H, W)`` with 1, 3 or 4 channels.
    """
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
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise TypeError(f"{caller} needs float or uint8 images at {key!r}, got {images.dtype}.")
    return images


def images_of(batch: Mapping[str, Any], key: str, caller: str) -> Tensor:
    """The images of a batch, checked.

    Raises:
        KeyError: If the key is missing.
        TypeError: If the value is not a tensor of floats or uint8.
        ValueError: If its shape is not ``(B, C, H, W)``.
    """
    if key not in batch:
        raise missing(key, caller, batch)
    return check_images(batch[key], key, caller)


def as_float(images: Tensor) -> Tensor:
    """Float images; uint8 is scaled to [0, 1] as torchvision does."""
    return images.float().mul_(1 / 255) if images.dtype == torch.uint8 else images


def own(images: Tensor) -> Tensor:
    """Float images in new memory."""
    return as_float(images) if images.dtype == torch.uint8 else images.clone()


def check_probability(name: str, p: float) -> None:
    """Refuse a probability outside [0, 1].

    Raises:
        ValueError: If ``p`` is outside.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"`{name}` must be in [0, 1], got {p}.")


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """One number as two, height and width."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
