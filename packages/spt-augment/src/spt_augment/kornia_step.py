"""kornia's augmentations as a step of a chain, for operations that have no form of their own here."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from spt_augment.base import Batch, BatchTransform, as_float, images_of


class GPUKornia(BatchTransform):
    """Modules of ``kornia.augmentation`` on a batch's images, one after the other.

    kornia draws from the global random state; here that is set from the keyed generator and put
    back, so that these draws too differ between ranks and repeat in a resumed run.

    Args:
        *modules: Such as ``kornia.augmentation.RandomPlasmaShadow()``.
        source: Key of the images.
        target: Key of the result, float.

    Raises:
        ValueError: If there is no module.

    Example:
        >>> import kornia.augmentation as K
        >>> flip = GPUKornia(K.RandomVerticalFlip(p=1.0))
        >>> flip({"image": torch.arange(4.0).view(1, 1, 2, 2)})["image"].flatten().tolist()
        [2.0, 3.0, 0.0, 1.0]
    """

    def __init__(self, *modules: nn.Module, source: str = "image", target: str = "image") -> None:
        super().__init__()
        if not modules:
            raise ValueError("GPUKornia needs at least one module of `kornia.augmentation`.")
        from kornia.augmentation import AugmentationSequential  # imported where it is used

        steps: tuple[Any, ...] = modules  # kornia's base class is private
        self.chain = AugmentationSequential(*steps, data_keys=["input"])
        self.source = source
        self.target = target

    def transform(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Replace the images."""
        images = as_float(images_of(batch, self.source, type(self).__name__))
        seed = int(torch.randint(2**62, (), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            batch[self.target] = self.chain(images)
        return batch
