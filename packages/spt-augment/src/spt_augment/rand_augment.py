"""RandAugment, with policies of its own for every image.

Cubuk et al., 2019. https://arxiv.org/abs/1909.13719, with the operations and magnitudes of
torchvision.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spt_augment import _inplace, _policies
from spt_augment._parameters import Draws, Parameters, column, send
from spt_augment.affine import Fill, Mode, affine_sample, inverse_affine
from spt_augment.base import ImageTransform

OPERATIONS = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)
GEOMETRIC = range(1, 6)
SIGNED = range(1, 10)  # half of their draws are negated
LARGEST = 30


class GPURandAugment(ImageTransform):
    """Apply ``n`` operations to each image, drawn per image out of fourteen.

    Rows are grouped by operation, so the work is that of ``n`` operations per image.

    Args:
        n: Operations per image.
        m: Magnitude, 0 to 30.
        magnitude_std: Standard deviation of a normal draw around ``m``, cut to the range.
        interpolation: Of shears, shifts and rotations: ``"nearest"`` or ``"bilinear"``.
        fill: Outside the image: ``None`` for zeros, else a value, or one per channel.
        source: Key of the images, 3 channels.
        target: Key of the result.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        n: int = 2,
        m: float = 10,
        magnitude_std: float = 0.0,
        interpolation: Mode = "nearest",
        fill: Fill = None,
        source: str = "image",
        target: str = "image",
    ) -> None:
        super().__init__(source, target)
        if n < 1:
            raise ValueError(f"`n` must be >= 1, got {n}.")
        if not 0 <= m <= LARGEST or magnitude_std < 0:
            raise ValueError(
                f"`m` must be in [0, {LARGEST}] and `magnitude_std` >= 0, got {m} and "
                f"{magnitude_std}."
            )
        self.n = n
        self.m = float(m)
        self.magnitude_std = float(magnitude_std)
        self.interpolation: Mode = interpolation
        self.fill = fill

    def draw(self, n: int, height: int, width: int, generator: torch.Generator) -> Draws:
        """Operation numbers and their signed strengths in [-1, 1], both ``(n, self.n)``."""
        shape = (n, self.n)
        operation = torch.randint(len(OPERATIONS), shape, generator=generator)
        spread = self.magnitude_std * torch.randn(shape, generator=generator)
        strength = (self.m + spread).clamp(0, LARGEST) / LARGEST
        negate = torch.rand(shape, generator=generator) < 0.5
        negate &= (operation >= SIGNED.start) & (operation < SIGNED.stop)
        return {
            "batch_prob": torch.ones(n, dtype=torch.bool),
            "operation": operation,
            "strength": torch.where(negate, -strength, strength),
        }

    def paint(self, images: Tensor, given: Parameters) -> Tensor:
        """Apply every layer, group by group.

        Raises:
            ValueError: If the images do not have 3 channels.
        """
        if images.shape[1] != 3:
            raise ValueError(f"GPURandAugment needs 3 channels, got {tuple(images.shape)}.")
        for layer in range(self.n):
            operation = given.host["operation"][:, layer]
            images = self._geometric(images, given, layer)
            for number in range(GEOMETRIC.stop, len(OPERATIONS)):
                rows = (operation == number).nonzero()[:, 0]
                if len(rows):
                    where = send(rows, images.device)
                    strength = given["strength"][where, layer]
                    changed = colour_operation(OPERATIONS[number], images[where], strength)
                    images.index_copy_(0, where, changed)
        return images

    def _geometric(self, images: Tensor, given: Parameters, layer: int) -> Tensor:
        """All shears, shifts and rotations of a layer in one grid."""
        operation = given.host["operation"][:, layer]
        rows = ((operation >= GEOMETRIC.start) & (operation < GEOMETRIC.stop)).nonzero()[:, 0]
        if len(rows) == 0:
            return images
        where = send(rows, images.device)
        numbers, strength = given["operation"][where, layer], given["strength"][where, layer]
        matrices = geometric_matrices(numbers, strength, images.shape[-2], images.shape[-1])
        moved = affine_sample(images[where], matrices, self.interpolation, self.fill)
        return images.index_copy_(0, where, moved)


def geometric_matrices(operation: Tensor, strength: Tensor, height: int, width: int) -> Tensor:
    """Maps of :func:`~spt_augment.affine.inverse_affine` for numbers of ``GEOMETRIC``.

    Args:
        operation: Numbers of ``OPERATIONS``, ``(B,)``.
        strength: In [-1, 1], ``(B,)``.
        height: Of the images, in pixels.
        width: Of the images, in pixels.
    """

    def only(name: str, value: Tensor) -> Tensor:
        return torch.where(operation == OPERATIONS.index(name), value, 0.0)

    degrees = torch.rad2deg(torch.atan(0.3 * strength))
    shear = torch.stack([only("ShearX", degrees), only("ShearY", degrees)], dim=1)
    shift = torch.stack(
        [
            only("TranslateX", (150 / 331 * width * strength).trunc()),
            only("TranslateY", (150 / 331 * height * strength).trunc()),
        ],
        dim=1,
    )
    matrices = inverse_affine(
        only("Rotate", -30 * strength), shift, torch.ones_like(strength), shear
    )
    # torchvision shears about the top left corner: the centre moves along
    corner = strength.new_tensor([width / 2, height / 2])
    linear = matrices[:, :2, :2]
    still = (linear @ corner[:, None])[..., 0] - corner
    sheared = (operation == OPERATIONS.index("ShearX")) | (operation == OPERATIONS.index("ShearY"))
    matrices[:, :2, 2] += torch.where(sheared[:, None], still, 0.0)
    return matrices


def colour_operation(name: str, images: Tensor, strength: Tensor) -> Tensor:
    """An operation that leaves pixels in their place, on images that may be written to.

    Args:
        name: One of ``OPERATIONS`` from brightness on.
        images: Float images in [0, 1].
        strength: In [-1, 1], ``(B,)``; negative only where the sign means something.
    """
    cell = column(strength, images)
    if name == "AutoContrast":
        return _policies.autocontrast(images)
    if name == "Equalize":
        return _policies.equalize(images)
    if name == "Posterize":
        return _policies.posterize(images, 8 - (LARGEST * cell / (LARGEST / 4)).round())
    if name == "Solarize":
        return _inplace.solarize(images, 1 - cell)
    factor = 1 + 0.9 * cell
    if name == "Brightness":
        return _inplace.adjust_brightness(images, factor)
    if name == "Color":
        return _inplace.adjust_saturation(images, factor)
    if name == "Contrast":
        return _inplace.adjust_contrast(images, factor)
    return _policies.sharpness(images, factor)
