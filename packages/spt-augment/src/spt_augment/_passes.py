"""The passes over images that a chain of transforms becomes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from spt_augment import _colors
from spt_augment._colors import Planes
from spt_augment._compile import Compiler
from spt_augment._parameters import Parameters, send
from spt_augment._resize import crop_lines, crop_resize, crop_rows
from spt_augment.affine import GPURandomAffine, GPURandomRotation, affine_sample
from spt_augment.base import ImageTransform, as_float, own
from spt_augment.blur import GPUGaussianBlur
from spt_augment.color import GPUColorJitter, GPUNormalize, GPURandomGrayscale, GPURandomSolarize
from spt_augment.geometric import GPURandomHorizontalFlip, GPURandomResizedCrop

Given = Sequence[Parameters]


class Pass:
    """Some transforms as one pass; ``places`` are theirs in the run."""

    def __init__(self, transforms: Sequence[ImageTransform], places: Sequence[int]) -> None:
        self.transforms = list(transforms)
        self.places = list(places)

    def __call__(
        self, images: Tensor, given: Given, owned: bool, compiler: Compiler | None
    ) -> Tensor:
        """Transform images; only ``owned`` ones may be written to."""
        raise NotImplementedError


class SinglePass(Pass):
    """A transform that nothing joins."""

    def __call__(
        self, images: Tensor, given: Given, owned: bool, compiler: Compiler | None
    ) -> Tensor:
        """Apply it."""
        (transform,) = self.transforms
        (mine,) = given
        images = images if owned and images.is_floating_point() else own(images)
        if isinstance(transform, GPUGaussianBlur):
            return transform.paint(images, mine, compiler)
        return transform.paint(images, mine)


class GeometricPass(Pass):
    """At most one crop, with mirrors before and after it: cut, resize and mirror at once."""

    def __call__(
        self, images: Tensor, given: Given, owned: bool, compiler: Compiler | None
    ) -> Tensor:
        """Cut every row from its image."""
        return self.cut(images, given, range(len(images)), compiler)

    @property
    def crop(self) -> GPURandomResizedCrop | None:
        """The crop, if there is one."""
        crops = [t for t in self.transforms if isinstance(t, GPURandomResizedCrop)]
        return crops[0] if crops else None

    def cut(self, images: Tensor, given: Given, rows: range, compiler: Compiler | None) -> Tensor:
        """Results for ``rows``, which are taken from the images modulo the batch."""
        crop = self.crop
        if crop is None:
            return _mirror(images, self._flips(given, "host"))
        if images.device.type == "cpu":
            on_host = self._boxes(given, images.shape[-1], "host"), self._flips(given, "host")
            boxes, flips = (value.tolist() for value in on_host)
            return crop_rows(images, rows, boxes, flips, crop.size, crop.interpolation)
        box, flip = self._boxes(given, images.shape[-1], "device"), self._flips(given, "device")
        if compiler is None:
            return crop_resize(images, box, crop.size, flip=flip, interpolation=crop.interpolation)
        return crop_lines(images, box, flip, crop.size, crop.interpolation, compiler)

    def _flips(self, given: Given, where: str, stop: int | None = None) -> Tensor:
        """Which results are mirrored: an odd number of flips is one."""
        pairs = list(zip(self.transforms, given, strict=True))[:stop]
        turns = [
            getattr(mine, where)["batch_prob"]
            for transform, mine in pairs
            if isinstance(transform, GPURandomHorizontalFlip)
        ]
        if not turns:
            return torch.zeros_like(getattr(given[0], where)["batch_prob"])
        return functools.reduce(torch.logical_xor, turns)

    def _boxes(self, given: Given, width: int, where: str) -> Tensor:
        """The boxes on the image as it is: a mirror before the crop mirrors the box."""
        place = self.transforms.index(self.crop)  # type: ignore[arg-type]
        boxes: Tensor = getattr(given[place], where)["box"]
        if place == 0:
            return boxes
        left = torch.where(
            self._flips(given, where, place), width - boxes[:, 1] - boxes[:, 3], boxes[:, 1]
        )
        return torch.stack([boxes[:, 0], left, boxes[:, 2], boxes[:, 3]], dim=1)


def _mirror(images: Tensor, turned: Tensor) -> Tensor:
    """Mirror the rows that the host knows of."""
    if not bool(turned.any()):
        return images
    rows = send(turned.nonzero()[:, 0], images.device)
    return images.index_copy(0, rows, images[rows].flip(-1))


class GridPass(Pass):
    """Affine maps, joined: the image is interpolated once, not once for each."""

    def __call__(
        self, images: Tensor, given: Given, owned: bool, compiler: Compiler | None
    ) -> Tensor:
        """Resample by the product of the maps."""
        last = self.transforms[-1]
        assert isinstance(last, GPURandomAffine)
        images = images if owned and images.is_floating_point() else own(images)
        total: Tensor | None = None
        changed = torch.zeros_like(given[0].chosen())
        for transform, mine in zip(self.transforms, given, strict=True):
            assert isinstance(transform, GPURandomAffine)
            matrix = transform.matrix(mine)
            still = torch.eye(3, device=matrix.device, dtype=matrix.dtype)
            matrix = torch.where(mine["batch_prob"][:, None, None], matrix, still)
            total = matrix if total is None else total @ matrix
            changed = changed | mine.chosen()
        assert total is not None
        rows = changed.nonzero()[:, 0]
        if len(rows) == 0:
            return images
        where = send(rows, images.device)
        sampled = affine_sample(images[where], total[where], last.interpolation, last.fill)
        return images.index_copy_(0, where, sampled)


class PointwisePass(Pass):
    """Colour steps: one fused pass when compiled, else in place, step by step."""

    def __call__(
        self, images: Tensor, given: Given, owned: bool, compiler: Compiler | None
    ) -> Tensor:
        """Apply them."""
        for transform in self.transforms:
            if isinstance(transform, (GPUColorJitter, GPUNormalize)):
                transform.check_channels(images)
        if compiler is not None and images.shape[1] == 3:
            return self._fused(images, given, compiler)
        images = images if owned and images.is_floating_point() else own(images)
        for transform, mine in zip(self.transforms, given, strict=True):
            images = transform.paint(images, mine)
        return images

    def _fused(self, images: Tensor, given: Given, compiler: Compiler) -> Tensor:
        """In one pass; on an accelerator after one for the mean of each contrast."""
        flat = images.flatten(2)
        numbers = flat.new_zeros(len(flat), 1, dtype=torch.float32)  # no column is no dimension
        program: tuple[Step, ...] = ()
        for transform, mine in zip(self.transforms, given, strict=True):
            name, fixed, columns = _step(transform, mine)
            program = (*program, (name, fixed, columns.shape[1]))
            numbers = torch.cat([numbers, columns], dim=1)
            if flat.device.type != "cpu" and name == "jitter" and fixed.contrast:
                mean = compiler(colour_mean, (flat, numbers), (program,))
                numbers = torch.cat([numbers, mean], dim=1)
                program = (*program[:-1], ("jitter with mean", fixed, columns.shape[1] + 1))
        return compiler(colour_pass, (flat, numbers), (program,)).view(images.shape)


Step = tuple[str, Any, int]
"""A colour step's name, what is fixed of it, and how many numbers it has for each image."""


def _step(transform: ImageTransform, given: Parameters) -> tuple[str, Any, Tensor]:
    """A transform's name, what is fixed of it, and its numbers ``(B, K)``."""
    if isinstance(transform, GPUColorJitter):
        return "jitter", transform.program(given), given["_numbers"]
    if isinstance(transform, GPUNormalize):
        return "normalize", (transform.mean, transform.std), given["batch_prob"][:, None][:, :0]
    chosen = given["batch_prob"][:, None].float()
    if isinstance(transform, GPURandomSolarize):
        return "solarize", transform.threshold, chosen
    return "grey", None, chosen


def colour_pass(images: Tensor, numbers: Tensor, program: tuple[Step, ...]) -> Tensor:
    """Colour steps on ``(N, 3, P)``, from uint8 or float to float.

    Args:
        images: The pixels; the result has their dtype, uint8 becomes float32.
        numbers: A column that is not used, then those of all steps side by side, ``(N, 1 + K)``.
        program: The steps.
    """
    pixels = as_float(images)
    planes = _stepped(pixels.unbind(1), numbers, program)
    return torch.stack(planes, dim=1).to(pixels.dtype)


def colour_mean(images: Tensor, numbers: Tensor, program: tuple[Step, ...]) -> Tensor:
    """The mean ``(N, 1)`` that the last step, a jitter, needs; see :func:`colour_pass`."""
    planes = _stepped(as_float(images).unbind(1), numbers, program[:-1])
    _, fixed, count = program[-1]
    return _colors.grey_mean(planes, numbers[:, -count:], fixed)


def _stepped(planes: Planes, numbers: Tensor, program: tuple[Step, ...]) -> Planes:
    place = 1
    for name, fixed, count in program:
        planes = STEPS[name](planes, numbers[:, place : place + count], fixed)
        place += count
    return planes


STEPS: dict[str, Callable[[Planes, Tensor, Any], Planes]] = {
    "jitter": _colors.jitter,
    "jitter with mean": lambda p, numbers, fixed: _colors.jitter(
        p, numbers[:, :-1], fixed, numbers[:, -1:]
    ),
    "grey": lambda planes, numbers, _: _colors.greyed(planes, numbers),
    "solarize": _colors.solarized,
    "normalize": lambda planes, _, fixed: _colors.normalized(planes, *fixed),
}

KINDS: tuple[tuple[type[Pass], tuple[type[ImageTransform], ...]], ...] = (
    (GeometricPass, (GPURandomResizedCrop, GPURandomHorizontalFlip)),
    (GridPass, (GPURandomAffine, GPURandomRotation)),
    (
        PointwisePass,
        (GPUColorJitter, GPURandomGrayscale, GPURandomSolarize, GPUNormalize),
    ),
)


def plan(transforms: Sequence[ImageTransform]) -> list[Pass]:
    """Group consecutive transforms into passes; a subclass of a transform is left alone."""
    passes: list[Pass] = []
    for place in _order(transforms):
        transform = transforms[place]
        kind = next((k for k, types in KINDS if type(transform) in types), SinglePass)
        last = passes[-1] if passes else None
        if (
            last is not None
            and type(last) is kind
            and kind is not SinglePass
            and _joins(last, transform)
        ):
            last.transforms.append(transform)
            last.places.append(place)
        else:
            passes.append(kind([transform], [place]))
    return passes


def _order(transforms: Sequence[ImageTransform]) -> list[int]:
    """The order of computing: a normalisation goes before the blur, to the colours' pass.

    It is affine and the same for all pixels of a channel, and the weights of a blur sum to 1.
    """
    order = list(range(len(transforms)))
    for place in range(1, len(order)):
        before, after = (type(transforms[order[i]]) for i in (place - 1, place))
        if before is GPUGaussianBlur and after is GPUNormalize:
            order[place - 1 : place + 1] = order[place], order[place - 1]
    return order


def _joins(last: Pass, transform: ImageTransform) -> bool:
    """Whether a pass can take one more transform of its kind."""
    if isinstance(last, GeometricPass):
        return last.crop is None or not isinstance(transform, GPURandomResizedCrop)
    if isinstance(last, GridPass):
        before = last.transforms[-1]
        return all(getattr(before, a) == getattr(transform, a) for a in ("interpolation", "fill"))
    return True
