"""Gaussian blur with one width per sample."""

from __future__ import annotations

import torch
from torch import Tensor

from spt_augment._random import coins, uniform
from spt_augment.base import ImageTransform, check_probability


class GPUGaussianBlur(ImageTransform):
    """Blur an image with probability ``p`` by a Gaussian whose width is drawn per sample.

    Only the images that drew it are convolved (separably, with reflected borders).

    Args:
        kernel_size: Odd number of taps, or one per axis (height, width); 23 at 224 pixels.
        sigma: Range of the standard deviation in pixels.
        p: Probability, in [0, 1].
        source: Key of the images.
        target: Key of the result.

    Raises:
        ValueError: If the kernel is even or a range is out of bounds.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int] = 23,
        sigma: tuple[float, float] = (0.1, 2.0),
        p: float = 0.5,
        source: str = "image",
        target: str = "image",
    ) -> None:
        super().__init__(source, target)
        pair = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        self.kernel_size = (int(pair[0]), int(pair[1]))
        if any(k < 1 or k % 2 == 0 for k in self.kernel_size):
            raise ValueError(f"`kernel_size` must be odd and positive, got {kernel_size}.")
        if not 0 < sigma[0] <= sigma[1]:
            raise ValueError(f"`sigma` must be a range of positive numbers, got {tuple(sigma)}.")
        check_probability("p", p)
        self.sigma = (float(sigma[0]), float(sigma[1]))
        self.p = p

    def images(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Blur the chosen images."""
        widths = uniform(len(images), *self.sigma, generator)
        rows = coins(len(images), self.p, generator).nonzero()[:, 0]
        if len(rows) == 0:
            return images
        where = rows.to(images.device, non_blocking=True)
        blurred = gaussian_blur(images[where], widths[rows], self.kernel_size)
        return images.index_copy(0, where, blurred)


def gaussian_blur(images: Tensor, sigma: Tensor, kernel_size: tuple[int, int]) -> Tensor:
    """Blur each image with its own width.

    Args:
        images: Float images ``(B, C, H, W)``.
        sigma: Standard deviations in pixels, ``(B,)``.
        kernel_size: Taps per axis, odd; at most twice the image's side.

    Raises:
        ValueError: If a kernel reaches further than the reflected image.
    """
    from kornia.filters import gaussian_blur2d

    for taps, side in zip(kernel_size, images.shape[-2:], strict=True):
        if taps // 2 >= side:
            raise ValueError(
                f"A blur of {taps} taps needs images of more than {taps // 2} pixels a side, got "
                f"{tuple(images.shape[-2:])}. Use a smaller `kernel_size`."
            )
    widths = sigma.to(images.device, images.dtype, non_blocking=True)[:, None].expand(-1, 2)
    blurred: Tensor = gaussian_blur2d(images, kernel_size, widths, border_type="reflect")
    return blurred
