"""Mixup, CutMix and label smoothing of a batch, drawn when it is collated.

Zhang et al., "mixup", ICLR 2018. https://arxiv.org/abs/1710.09412
Yun et al., "CutMix", ICCV 2019. https://arxiv.org/abs/1905.04899
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spt_data._draws import keyed_draws
from spt_data.collate import collate
from spt_data.datasets import Sample


def soft_labels(labels: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """Class ids ``(B,)`` as smoothed distributions ``(B, K)``.

    Example:
        >>> soft_labels(torch.tensor([1]), 2, smoothing=0.1)
        tensor([[0.0500, 0.9500]])
    """
    off = smoothing / num_classes
    one_hot = torch.nn.functional.one_hot(labels, num_classes).float()
    return one_hot * (1 - smoothing) + off


def cut_box(height: int, width: int, share: float) -> tuple[int, int, int, int]:
    """A rectangle of a share of the image around a random centre, cut at the borders.

    Returns:
        Top, bottom, left and right.
    """
    half_height, half_width = (int(side * share**0.5) // 2 for side in (height, width))
    y, x = (int(torch.randint(side, ())) for side in (height, width))
    rows = max(0, y - half_height), min(height, y + half_height)
    return *rows, max(0, x - half_width), min(width, x + half_width)


class MixCollator:
    """Collate, and mix the images of a batch with those of a random permutation of it.

    One mixture per batch, as in DeiT: CutMix with probability ``switch_prob``, else Mixup; the
    images stay as they are with probability 1 - ``prob``. When samples hold ``mix_seed`` (see
    ``DrawSeed``), the draws follow from it: the same on any worker, and when a run is resumed.

    Args:
        num_classes: Number of classes K.
        mixup_alpha: Of Mixup's Beta(α, α); 0 leaves Mixup out.
        cutmix_alpha: Of CutMix's Beta(α, α); 0 leaves CutMix out.
        prob: Probability to mix at all.
        switch_prob: Probability of CutMix when both are possible.
        label_smoothing: Mass that is spread over all classes.
        source: Key of the images, float ``(B, C, H, W)``.
        label_key: Key of the class ids, int64 ``(B,)``; they become soft labels, ``(B, K)``.
        seed_key: Key of the samples' seeds.

    Raises:
        ValueError: If a probability or an alpha is out of range, or both alphas are 0.
    """

    def __init__(
        self,
        num_classes: int,
        mixup_alpha: float = 0.8,
        cutmix_alpha: float = 1.0,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        label_smoothing: float = 0.1,
        source: str = "image",
        label_key: str = "label",
        seed_key: str = "mix_seed",
    ) -> None:
        shares = {"prob": prob, "switch_prob": switch_prob, "label_smoothing": label_smoothing}
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise ValueError(f"`{name}` must be in [0, 1], got {value}.")
        if min(mixup_alpha, cutmix_alpha) < 0 or mixup_alpha == cutmix_alpha == 0:
            raise ValueError(
                "`mixup_alpha` and `cutmix_alpha` must be at least 0 and one of them positive, got "
                f"{mixup_alpha} and {cutmix_alpha}."
            )
        self.num_classes = num_classes
        self.mixup_alpha = mixup_alpha
        self.cutmix_alpha = cutmix_alpha
        self.prob = prob
        self.switch_prob = switch_prob
        self.label_smoothing = label_smoothing
        self.source = source
        self.label_key = label_key
        self.seed_key = seed_key

    def __call__(self, samples: Sequence[Sample]) -> Sample:
        """The batch, mixed."""
        batch = dict(collate(samples))
        seeds = batch.pop(self.seed_key, None)
        if seeds is None:
            images, soft = self.mix(batch[self.source], batch[self.label_key])
        else:
            with keyed_draws(*seeds.tolist()):
                images, soft = self.mix(batch[self.source], batch[self.label_key])
        return {**batch, self.source: images, self.label_key: soft}

    def mix(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mixed images and soft labels.

        Raises:
            ValueError: If the images are not of a float type.
        """
        if not images.is_floating_point():
            raise ValueError(
                f"MixCollator needs images of a float type, got {images.dtype}; use ToImage "
                "without dtype=torch.uint8."
            )
        soft = soft_labels(labels, self.num_classes, self.label_smoothing)
        if float(torch.rand(())) >= self.prob:
            return images, soft
        partner = torch.randperm(len(images))
        cut = self.cutmix_alpha > 0 and (
            self.mixup_alpha == 0 or float(torch.rand(())) < self.switch_prob
        )
        share = self._share(self.cutmix_alpha if cut else self.mixup_alpha)
        if cut:
            images, share = self._cut(images, images[partner], share)
        else:
            images = images.lerp(images[partner], 1 - share)
        return images, soft.lerp(soft[partner], 1 - share)

    def _share(self, alpha: float) -> float:
        return float(torch.distributions.Beta(alpha, alpha).sample())

    def _cut(self, images: Tensor, others: Tensor, share: float) -> tuple[Tensor, float]:
        height, width = images.shape[-2:]
        top, bottom, left, right = cut_box(height, width, 1 - share)
        mixed = images.clone()
        mixed[..., top:bottom, left:right] = others[..., top:bottom, left:right]
        return mixed, 1 - (bottom - top) * (right - left) / (height * width)
