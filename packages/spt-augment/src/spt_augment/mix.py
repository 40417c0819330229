"""Mixup and CutMix of a batch, with soft labels.

Zhang et al., ICLR 2018. https://arxiv.org/abs/1710.09412
Yun et al., ICCV 2019. https://arxiv.org/abs/1905.04899
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from spt_augment._parameters import send
from spt_augment._random import Drawing, beta
from spt_augment.base import Batch, BatchTransform, as_float, check_probability, images_of, missing


class RandomMixupCutmix(Drawing):
    """Mix every image of a batch with another one, by Mixup or by CutMix, and their labels.

    The share and the kind are drawn once per batch, the partners by a random permutation.
    Called as ``(images, labels) -> (images, soft labels)``; it has no part in the gradient.

    Args:
        num_classes: ``K``.
        mixup_alpha: Parameter of Beta(a, a) for Mixup; 0 for CutMix alone.
        cutmix_alpha: Parameter of Beta(a, a) for CutMix; 0 for Mixup alone.
        prob: Share of the batches that are mixed.
        switch_prob: Share of CutMix among them when both are on.
        label_smoothing: ``s``; a wrong class gets ``s / K``, the right one ``1 - s + s / K``.

    Raises:
        ValueError: If a number is out of range, or both kinds are off.

    Example:
        >>> mix = RandomMixupCutmix(num_classes=10)
        >>> images, labels = mix(torch.rand(4, 3, 8, 8), torch.tensor([1, 2, 3, 4]))
        >>> images.shape, labels.shape, round(labels.sum().item(), 4)
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 10]), 4.0)
    """

    def __init__(
        self,
        num_classes: int,
        mixup_alpha: float = 0.8,
        cutmix_alpha: float = 1.0,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        label_smoothing: float = 0.1,
    ) -> None:
        super().__init__()
        self.number = 0  # it is part of a model, and equal models draw alike
        if num_classes < 1:
            raise ValueError(f"`num_classes` must be >= 1, got {num_classes}.")
        if mixup_alpha < 0 or cutmix_alpha < 0 or mixup_alpha == cutmix_alpha == 0:
            raise ValueError(
                "`mixup_alpha` and `cutmix_alpha` must be >= 0 and one of them above 0, got "
                f"{mixup_alpha} and {cutmix_alpha}."
            )
        for name, value in (
            ("prob", prob),
            ("switch_prob", switch_prob),
            ("label_smoothing", label_smoothing),
        ):
            check_probability(name, value)
        self.num_classes = num_classes
        self.mixup_alpha = mixup_alpha
        self.cutmix_alpha = cutmix_alpha
        self.prob = prob
        self.switch_prob = switch_prob
        self.label_smoothing = label_smoothing

    @torch.no_grad()
    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mix.

        Args:
            images: ``(B, C, H, W)``, float or uint8; they are left as they are.
            labels: Classes int64 ``(B,)``.

        Returns:
            Float images and soft labels ``(B, K)``, which sum to 1.

        Raises:
            ValueError: If the labels are not one class per image.
        """
        if labels.ndim != 1 or len(labels) != len(images) or labels.is_floating_point():
            raise ValueError(
                f"`labels` must be {len(images)} class numbers, shape ({len(images)},), got "
                f"{labels.dtype} of shape {tuple(labels.shape)}."
            )
        images, soft = as_float(images), self._smooth(labels)
        with self.drawing() as generator:
            coin, cut = torch.rand(2, generator=generator).tolist()
            order = torch.randperm(len(images), generator=generator)
            cuts = (
                cut < self.switch_prob
                if self.mixup_alpha and self.cutmix_alpha
                else (self.mixup_alpha == 0)
            )
            alpha = self.cutmix_alpha if cuts else self.mixup_alpha
            share = float(beta(1, alpha, generator))
            centre = torch.rand(2, generator=generator).tolist()
        if coin >= self.prob:
            return images, soft
        partner = send(order, images.device)
        if cuts:
            images, share = cutmix(images, partner, share, (centre[0], centre[1]))
        else:
            images = torch.lerp(images[partner], images, share)
        return images, torch.lerp(soft[partner], soft, share)

    def _smooth(self, labels: Tensor) -> Tensor:
        off = self.label_smoothing / self.num_classes
        hot = F.one_hot(labels, self.num_classes).float()
        return hot * (1 - self.label_smoothing) + off


def cutmix(
    images: Tensor, partner: Tensor, share: float, centre: tuple[float, float]
) -> tuple[Tensor, float]:
    """Paste a rectangle of each partner, cut where it leaves the image.

    Args:
        images: ``(B, C, H, W)``; left as they are.
        partner: The other image of each, int64 ``(B,)``.
        share: Of the area that the image keeps, before the cut.
        centre: Of the rectangle, as shares of height and width.

    Returns:
        The images, and the share that was really kept.
    """
    height, width = images.shape[-2:]
    edges = []
    for at, side in zip(centre, (height, width), strict=True):
        half = int(side * math.sqrt(1 - share)) // 2
        middle = int(at * side)
        edges.append((max(0, middle - half), min(side, middle + half)))
    (top, bottom), (left, right) = edges
    out = images.clone()
    out[:, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
    return out, 1 - (bottom - top) * (right - left) / (height * width)


class MixBatch(BatchTransform):
    """A :class:`RandomMixupCutmix` on a batch's images and labels, as a step of a chain.

    Args:
        mix: What mixes.
        source: Key of the images.
        label_key: Key of the labels, int64 ``(B,)``; they become soft, ``(B, K)``.
    """

    def __init__(
        self, mix: RandomMixupCutmix, source: str = "image", label_key: str = "label"
    ) -> None:
        super().__init__()
        self.mix = mix
        self.source = source
        self.label_key = label_key

    def transform(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Mix images and labels."""
        images = images_of(batch, self.source, type(self).__name__)
        if self.label_key not in batch:
            raise missing(self.label_key, type(self).__name__, batch)
        batch[self.source], batch[self.label_key] = self.mix(images, batch[self.label_key])
        return batch
