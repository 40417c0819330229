"""Crops and flips, each sample with its own parameters, the batch in two matrix products.

A separable resize of a crop is ``rows @ image @ columns.T``, with one small matrix of filter
weights per sample and axis. The weights are those of torch's antialiased bilinear
interpolation, so results agree with torchvision's crop followed by an antialiased resize.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spt_augment._random import coins, uniform
from spt_augment.base import ImageTransform, check_probability, choose


class GPURandomResizedCrop(ImageTransform):
    """Crop a random area of each image and resize it, antialiased.

    Parameters are drawn as in torchvision's ``RandomResizedCrop``: up to ten tries, then the
    largest central crop within the aspect range.

    Args:
        size: Output height and width; one number for a square.
        scale: Range of the crop's share of the image's area, within (0, 1].
        ratio: Range of the crop's aspect (width / height), drawn log-uniformly.
        p: Share of the images that are cropped; the others are resized whole.
        source: Key of the images ``(B, C, H, W)``.
        target: Key of the result ``(B, C, size, size)``.

    Raises:
        ValueError: If a range is empty or out of bounds.

    Example:
        >>> crop = GPURandomResizedCrop(16, scale=(0.2, 1.0))
        >>> crop({"image": torch.rand(4, 3, 32, 32)})["image"].shape
        torch.Size([4, 3, 16, 16])
    """

    def __init__(
        self,
        size: int | tuple[int, int],
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        p: float = 1.0,
        source: str = "image",
        target: str = "image",
    ) -> None:
        super().__init__(source, target)
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"`scale` must be a range within (0, 1], got {tuple(scale)}.")
        if not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"`ratio` must be a range of positive numbers, got {tuple(ratio)}.")
        check_probability("p", p)
        self.size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        self.scale = (float(scale[0]), float(scale[1]))
        self.ratio = (float(ratio[0]), float(ratio[1]))
        self.p = p

    def images(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Crop and resize."""
        boxes = self.boxes(len(images), images.shape[-2], images.shape[-1], generator)
        return crop_resize(images, boxes, self.size)

    def boxes(self, n: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Draw ``n`` crops: int64 ``(n, 4)`` of top, left, height, width in pixels."""
        tries = 10
        area = height * width * uniform(n * tries, *self.scale, generator)
        low, high = (math.log(bound) for bound in self.ratio)
        aspect = uniform(n * tries, low, high, generator).exp()
        w = (area * aspect).sqrt().round().long().view(n, tries)
        h = (area / aspect).sqrt().round().long().view(n, tries)
        fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
        first = fits.int().argmax(1, keepdim=True)
        w, h = w.gather(1, first)[:, 0], h.gather(1, first)[:, 0]
        place = torch.rand(2, n, generator=generator)
        top = (place[0] * (height - h + 1)).long()
        left = (place[1] * (width - w + 1)).long()
        drawn = torch.stack([top, left, h, w], dim=1)
        drawn = torch.where(fits.any(1)[:, None], drawn, self._central(height, width))
        cropped = coins(n, self.p, generator)[:, None]
        return torch.where(cropped, drawn, torch.tensor([0, 0, height, width]))

    def _central(self, height: int, width: int) -> Tensor:
        """The largest central crop within the aspect range."""
        aspect = width / height
        h, w = height, width
        if aspect < self.ratio[0]:
            h = round(width / self.ratio[0])
        elif aspect > self.ratio[1]:
            w = round(height * self.ratio[1])
        return torch.tensor([(height - h) // 2, (width - w) // 2, h, w])


class GPURandomHorizontalFlip(ImageTransform):
    """Mirror each image left to right with probability ``p``.

    Args:
        p: Probability, in [0, 1].
        source: Key of the images.
        target: Key of the result.

    Raises:
        ValueError: If ``p`` is out of range.
    """

    def __init__(self, p: float = 0.5, source: str = "image", target: str = "image") -> None:
        super().__init__(source, target)
        check_probability("p", p)
        self.p = p

    def images(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Flip the chosen images."""
        return choose(coins(len(images), self.p, generator), images.flip(-1), images)


def crop_resize(images: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Crop each image to its own box and resize it to one size, bilinear and antialiased.

    Args:
        images: Float images ``(B, C, H, W)``.
        boxes: int64 ``(B, 4)``: top, left, height, width in pixels, inside the image.
        size: Output height and width.

    Returns:
        Images ``(B, C, *size)`` in the dtype of the input.
    """
    boxes = boxes.to(images.device, non_blocking=True)
    wide = torch.promote_types(images.dtype, torch.float32)
    rows = resize_weights(boxes[:, 0], boxes[:, 2], images.shape[-2], size[0], wide)
    columns = resize_weights(boxes[:, 1], boxes[:, 3], images.shape[-1], size[1], wide)
    with torch.autocast(images.device.type, enabled=False):
        resized = rows[:, None] @ images.to(wide) @ columns[:, None].mT
    return resized.to(images.dtype)


def resize_weights(
    start: Tensor, length: Tensor, pixels: int, out: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Filter weights of an antialiased bilinear resize of segments of a line.

    Args:
        start: First pixel of each segment, ``(B,)``.
        length: Pixels of each segment, ``(B,)``.
        pixels: Pixels of the whole line.
        out: Pixels after the resize.
        dtype: Of the weights.

    Returns:
        Weights ``(B, out, pixels)``; each row sums to 1.
    """
    scale = (length.to(torch.float64) / out)[:, None, None]
    reach = scale.clamp(min=1.0)
    centre = scale * (torch.arange(out, device=start.device)[:, None] + 0.5)  # (B, out, 1)
    first = (centre - reach + 0.5).long().clamp(min=0)
    last = torch.minimum((centre + reach + 0.5).long(), length[:, None, None])
    pixel = torch.arange(pixels, device=start.device) - start[:, None, None]  # (B, 1, pixels)
    weights = (1.0 - ((pixel + 0.5 - centre) / reach).abs()).clamp(min=0.0)
    weights = torch.where((pixel >= first) & (pixel < last), weights, 0.0)
    return (weights / weights.sum(-1, keepdim=True)).to(dtype)
