"""Gaussian blur with one width per sample."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from spt_augment._compile import Compiler
from spt_augment._parameters import Draws, Parameters, on_chosen_rows, send
from spt_augment._random import coins, uniform
from spt_augment.base import ImageTransform, check_probability, pair


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
        self.kernel_size = pair(kernel_size)
        if any(k < 1 or k % 2 == 0 for k in self.kernel_size):
            raise ValueError(f"`kernel_size` must be odd and positive, got {kernel_size}.")
        if not 0 < sigma[0] <= sigma[1]:
            raise ValueError(f"`sigma` must be a range of positive numbers, got {tuple(sigma)}.")
        check_probability("p", p)
        self.sigma = (float(sigma[0]), float(sigma[1]))
        self.p = p

    def draw(self, n: int, height: int, width: int, generator: torch.Generator) -> Draws:
        """A width in pixels and a coin per image."""
        sigma = uniform(n, *self.sigma, generator)
        return {"batch_prob": coins(n, self.p, generator), "sigma": sigma}

    def paint(self, images: Tensor, given: Parameters, compiler: Compiler | None = None) -> Tensor:
        """Blur the chosen images."""
        self._check_size(images)
        if compiler is not None:
            return self._compiled(images, given, compiler)
        return on_chosen_rows(images, given, self._blur)

    def _blur(self, images: Tensor, given: Parameters) -> Tensor:
        radii = self._radii(float(given.host["sigma"].max()))
        return blur(images, given["sigma"].to(images.dtype), radii)

    def _compiled(self, images: Tensor, given: Parameters, compiler: Compiler) -> Tensor:
        """The chosen rows in three passes: taken and padded, along the width, and back in place."""
        rows = given.chosen().nonzero()[:, 0]
        if len(rows) == 0:
            return images
        where = send(rows, images.device)
        radii = self._radii(self.sigma[1])
        down, across = gaussians(given["sigma"][where].to(images.dtype), radii)
        padded = compiler(padded_rows, (where, images), (radii,))
        lines = compiler(sum_of_taps, (padded, across), (3,))
        return compiler(put_filtered, (images, where, lines, down), ())

    def _radii(self, sigma: float) -> tuple[int, int]:
        """Taps on either side of the middle; beyond five widths a tap weighs less than 4e-6."""
        far = math.ceil(5 * sigma)
        return min(self.kernel_size[0] // 2, far), min(self.kernel_size[1] // 2, far)

    def _check_size(self, images: Tensor) -> None:
        for taps, side in zip(self.kernel_size, images.shape[-2:], strict=True):
            if taps // 2 >= side:
                raise ValueError(
                    f"A blur of {taps} taps needs images of more than {taps // 2} pixels a side, "
                    f"got {tuple(images.shape[-2:])}. Use a smaller `kernel_size`."
                )


def gaussian_blur(images: Tensor, sigma: Tensor, kernel_size: tuple[int, int]) -> Tensor:
    """Blur each image with its own width.

    Args:
        images: Float images ``(B, C, H, W)``.
        sigma: Standard deviations in pixels, ``(B,)``.
        kernel_size: Taps per axis (height, width), odd; at most twice the image's side.

    Raises:
        ValueError: If a kernel is even or reaches further than the reflected image.
    """
    whole = GPUGaussianBlur(kernel_size)
    whole._check_size(images)
    radii = (kernel_size[0] // 2, kernel_size[1] // 2)
    return blur(images, send(sigma, images.device).to(images.dtype), radii)


def blur(images: Tensor, sigma: Tensor, radii: tuple[int, int]) -> Tensor:
    """Blur along the width, then along the height."""
    rows, columns = radii
    down, across = gaussians(sigma, radii)
    images = filter_line(F.pad(images, (columns, columns, 0, 0), mode="reflect"), across, 3)
    return filter_line(F.pad(images, (0, 0, rows, rows), mode="reflect"), down, 2)


def gaussians(sigma: Tensor, radii: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Weights along the height and along the width; one tensor when they are the same."""
    down = gaussian(sigma, radii[0])
    return down, down if radii[0] == radii[1] else gaussian(sigma, radii[1])


def gaussian(sigma: Tensor, radius: int) -> Tensor:
    """Weights ``(B, 2 * radius + 1)`` that sum to 1."""
    x = torch.arange(-radius, radius + 1, device=sigma.device, dtype=sigma.dtype)
    weights = torch.exp(-0.5 * (x / sigma[:, None]).square())
    return weights / weights.sum(1, keepdim=True)


def padded_rows(rows: Tensor, images: Tensor, radii: tuple[int, int]) -> Tensor:
    """Some images of a batch, mirrored at their borders by the radii along height and width."""
    tall, wide = radii
    return F.pad(images[rows], (wide, wide, tall, tall), mode="reflect")


def put_filtered(images: Tensor, rows: Tensor, lines: Tensor, weights: Tensor) -> Tensor:
    """Write into some rows of images what :func:`sum_of_taps` makes along the height."""
    return images.index_copy_(0, rows, sum_of_taps(lines, weights, 2))


def filter_line(padded: Tensor, weights: Tensor, dim: int) -> Tensor:
    """Each image's own filter ``(B, K)`` along one dimension of padded ``(B, C, H, W)``."""
    if padded.device.type == "cpu":
        return sum_of_taps(padded, weights, dim)
    n, c = padded.shape[:2]
    taps = (1, weights.shape[1]) if dim == 3 else (weights.shape[1], 1)
    kernels = weights.repeat_interleave(c, 0).view(n * c, 1, *taps)
    lines = padded.reshape(1, n * c, *padded.shape[2:])
    return F.conv2d(lines, kernels, groups=n * c).view(n, c, *_cropped(padded, weights, dim))


def _cropped(padded: Tensor, weights: Tensor, dim: int) -> tuple[int, int]:
    height, width = padded.shape[2:]
    lost = weights.shape[1] - 1
    return (height, width - lost) if dim == 3 else (height - lost, width)


def sum_of_taps(padded: Tensor, weights: Tensor, dim: int) -> Tensor:
    """The filter as a weighted sum of shifted images."""
    side = padded.shape[dim] - weights.shape[1] + 1
    cells = weights[:, :, None, None, None]
    out = padded.narrow(dim, 0, side) * cells[:, 0]
    for tap in range(1, weights.shape[1]):
        out.addcmul_(padded.narrow(dim, tap, side), cells[:, tap])
    return out
