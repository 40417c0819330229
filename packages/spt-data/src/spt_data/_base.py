"""Transforms of a sample: the base, and the base of those that are torchvision's.

A transform takes a dict and returns a new one: the given sample is never written to, so views
made from one sample cannot leak into each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from spt_data._errors import explain
from spt_data._keys import Path, as_paths, containers_of, read, write
from spt_data.datasets import Sample

ANNOTATIONS: tuple[type, ...] = tuple(
    getattr(tv_tensors, name)
    for name in ("BoundingBoxes", "Mask", "KeyPoints")
    if hasattr(tv_tensors, name)
)


class SampleTransform:
    """Base: reads ``source``, calls :meth:`apply`, and writes ``target``.

    Args:
        source: Key of the value to transform, a path with dots, or several of them.
        target: Key of the result, or as many as there are sources.

    Raises:
        ValueError: If there are not as many targets as sources.
    """

    def __init__(self, source: Path = "image", target: Path = "image") -> None:
        self.source = source
        self.target = target
        if len(as_paths(source)) != len(as_paths(target)):
            raise ValueError(
                f"`target` must have as many keys as `source`, got {target!r} for {source!r}."
            )

    def __call__(self, sample: Sample) -> Sample:
        """A copy of the sample with the result under ``target``.

        Raises:
            KeyError: If the sample has no ``source``.
        """
        values = self.read(sample)
        try:
            results = [self.apply(value) for value in values]
        except Exception as error:
            self.refuse(error, sample)
        return self.write(sample, results)

    def apply(self, value: Any) -> Any:
        """Transform the value."""
        raise NotImplementedError

    def read(self, sample: Sample) -> list[Any]:
        """The values at the sources."""
        return [read(sample, path, type(self).__name__) for path in as_paths(self.source)]

    def write(self, sample: Sample, results: list[Any]) -> Sample:
        """A copy of the sample with the results at the targets."""
        for path, result in zip(as_paths(self.target), results, strict=True):
            sample = write(sample, path, result)
        return sample

    def skip(self, sample: Sample) -> Sample:
        """A copy of the sample with the sources, as they are, at the targets."""
        return self.write(sample, self.read(sample))

    def refuse(self, error: Exception, sample: Sample) -> None:
        """Raise the error again, naming the transform, the sample and its keys."""
        keys = ", ".join(map(repr, as_paths(self.source)))
        told = explain(error, type(self).__name__, sample, keys)
        if told is error:
            raise error
        raise told from error

    def __repr__(self) -> str:
        public = {key: value for key, value in vars(self).items() if not key.startswith("_")}
        settings = ", ".join(f"{key}={value!r}" for key, value in public.items())
        return f"{type(self).__name__}({settings})"


def with_record(sample: Sample, name: str, record: Any) -> Sample:
    """Leave what was done under a name; the second time under ``name_0``, then ``name_1``."""
    key, count = name, 0
    while key in sample:
        key, count = f"{name}_{count}", count + 1
    return {**sample, key: record}


class RecordedTransform(SampleTransform):
    """Base of what is drawn at random: one draw for all sources, and a record of it.

    The record stands under the name of the class and has the same type whether the transform was
    applied or not, so samples collate.

    Args:
        p: Probability, in [0, 1].
        source: Key of the image, or several of equal size.
        target: Key of the result.

    Raises:
        ValueError: If ``p`` is not in [0, 1].
    """

    recorded = True
    geometric = False  # boxes, masks and key points follow

    def __init__(self, p: float = 1.0, source: Path = "image", target: Path = "image") -> None:
        super().__init__(source, target)
        if not 0 <= p <= 1:
            raise ValueError(f"`p` must be in [0, 1], got {p}.")
        self.p = p

    def draw(self, values: list[Any]) -> dict[str, Any]:
        """The parameters of one application."""
        return {}

    def act(self, value: Any, params: dict[str, Any]) -> Any:
        """Apply the operation with these parameters to an image, boxes, a mask."""
        raise NotImplementedError

    def record(self, params: dict[str, Any]) -> Any:
        """What to leave after an application."""
        return True

    def bypass(self) -> Any:
        """What to leave when nothing was done."""
        return False

    def __call__(self, sample: Sample) -> Sample:
        """A copy of the sample with the result, followed annotations and the record."""
        values = self.read(sample)
        if self.p < 1 and float(torch.rand(())) >= self.p:
            return self.skip(sample)
        try:
            for value in values:
                self.check(value)
            if self.geometric:
                check_sizes(values)
            params = self.draw(values)
            results = [self.act(value, params) for value in values]
            followed = self._followed(sample, values, params)
        except Exception as error:
            self.refuse(error, sample)
        out = self.write(followed, results)
        return with_record(out, type(self).__name__, self.record(params)) if self.recorded else out

    def _followed(self, sample: Sample, values: list[Any], params: dict[str, Any]) -> Sample:
        """The sample with its annotations moved along, when the image is changed in place.

        They are those beside and below the image: other views have their own.
        """
        if not self.geometric or as_paths(self.source) != as_paths(self.target):
            return sample
        size = tuple(F.get_size(values[0]))

        def follow(value: Any) -> Any:
            return self.act(value, params) if fits(value, size) else value

        for path in containers_of(sample, as_paths(self.source)):
            beside = dict(read(sample, path, type(self).__name__))
            sample = write(sample, path, map_annotations(beside, follow))
        return sample

    def skip(self, sample: Sample) -> Sample:
        """A copy of the sample with its sources at the targets, and the record of doing nothing."""
        out = super().skip(sample)
        return with_record(out, type(self).__name__, self.bypass()) if self.recorded else out

    def check(self, value: Any) -> None:
        """Refuse what is no image.

        Raises:
            TypeError: If the value is neither a PIL image nor a tensor.
        """
        if not isinstance(value, (Tensor, Image.Image)):
            raise TypeError(
                f"{type(self).__name__} needs a PIL image or a tensor (..., C, H, W), got "
                f"{type(value).__name__}; put ToImage before it."
            )


def check_sizes(values: list[Any]) -> None:
    """Refuse images that cannot share one crop.

    Raises:
        ValueError: If the sizes differ.
    """
    sizes = [tuple(F.get_size(value)) for value in values]
    if len(set(sizes)) > 1:
        raise ValueError(f"several sources must have one size (H, W), got {sizes}")


def fits(annotation: Any, size: tuple[int, ...]) -> bool:
    """Whether boxes, a mask or key points belong to an image of this size.

    Raises:
        ValueError: If they do not: they could not follow, and would silently be wrong.
    """
    own = tuple(getattr(annotation, "canvas_size", annotation.shape[-2:]))
    if own != size:
        raise ValueError(
            f"the sample holds {type(annotation).__name__} of an image of size {own}, but the "
            f"image is {size}; make them agree, or give the result another `target`"
        )
    return True


def map_annotations(value: Any, follow: Callable[[Any], Any]) -> Any:
    """Apply a function to the boxes, masks and key points in nested containers."""
    if isinstance(value, ANNOTATIONS):
        return follow(value)
    if type(value) is dict:
        return {key: map_annotations(item, follow) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map_annotations(item, follow) for item in value)
    return value


class TorchTransform(RecordedTransform):
    """Base of the operations that torchvision's v2 transforms implement.

    Args:
        operation: A v2 transform; its own probability is not used.
        p: Probability, in [0, 1].
        source: Key of the image, or several of equal size.
        target: Key of the result.
    """

    def __init__(
        self,
        operation: v2.Transform,
        p: float = 1.0,
        source: Path = "image",
        target: Path = "image",
    ) -> None:
        super().__init__(p, source, target)
        self.operation = operation

    def draw(self, values: list[Any]) -> dict[str, Any]:
        """The parameters that torchvision draws for these images."""
        return dict(self.operation.make_params(values))

    def act(self, value: Any, params: dict[str, Any]) -> Any:
        """Torchvision's operation."""
        return self.operation.transform(value, params)
