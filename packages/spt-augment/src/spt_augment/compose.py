"""A chain of transforms in as few passes over memory as it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spt_augment._compile import Compiler
from spt_augment._parameters import Parameters, place
from spt_augment._passes import GeometricPass, Pass, plan
from spt_augment.base import (
    Batch,
    BatchTransform,
    ImageTransform,
    as_float,
    check_images,
    free_name,
    missing,
    record,
)

Transform = Callable[[Batch], Batch]
EAGER_PIXELS = 2**16  # on a processor: what stays in the cache between steps
COMPILED_PIXELS = 2**19  # fewer calls when a step is one pass


class GPUCompose(BatchTransform):
    """Apply transforms one after the other, joined where they can be.

    Consecutive crops and flips are one resampling, consecutive affine maps one grid, consecutive
    colour steps one pointwise pass; blur touches the rows that drew it. All numbers of such a run
    are drawn before the first pass and cross to the device in one copy. On a processor the batch
    goes through all passes in pieces that fit its cache.

    Args:
        transforms: Callables from batch to batch. Those of this package that follow each other on
            the same key are joined; others are called in their place.
        compile: Compile the pointwise passes (and, on an accelerator, the crop) with
            ``torch.compile`` when the images are on an accelerator. :meth:`compile` does it on
            any device.
        compile_mode: Mode of ``torch.compile``.
        dynamic: Compile once for all sizes; ``False`` compiles anew for every size.
        fuse: ``False`` applies one transform after the other, for comparison.

    Raises:
        TypeError: If an entry cannot be called.

    Example:
        >>> from spt_augment import GPURandomHorizontalFlip, GPURandomResizedCrop
        >>> chain = GPUCompose([GPURandomResizedCrop(8), GPURandomHorizontalFlip()])
        >>> chain({"image": torch.rand(2, 3, 16, 16)})["image"].shape
        torch.Size([2, 3, 8, 8])
    """

    def __init__(
        self,
        transforms: Sequence[Transform],
        compile: bool = True,
        compile_mode: str | None = None,
        dynamic: bool = True,
        fuse: bool = True,
    ) -> None:
        super().__init__()
        for position, transform in enumerate(transforms):
            if not callable(transform):
                raise TypeError(
                    f"`transforms[{position}]` must be callable, got {type(transform).__name__}."
                )
        self.transforms = nn.ModuleList([as_module(transform) for transform in transforms])
        self.fuse = fuse
        self.compiles_on: set[str] = {"cuda"} if compile else set()
        self._compiler = Compiler(compile_mode, dynamic)

    def compile_passes(self, mode: str | None = None) -> None:
        """Compile on every device from now on."""
        self.compiles_on = {"cuda", "cpu"}
        self._compiler = Compiler(mode or self._compiler.mode, self._compiler.dynamic)

    def transform(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Apply all in order."""
        return self.transform_copies(batch, generator, 1)

    def transform_copies(self, batch: Batch, generator: torch.Generator, copies: int) -> Batch:
        """Apply all to ``copies`` of the images, row ``j`` being a copy of image ``j % B``.

        A chain that begins with a crop cuts all of them from the one batch. What else is in the
        batch must have the copies already.
        """
        for run in self._runs():
            if isinstance(run[0], ImageTransform):
                batch = self._images(batch, run, generator, copies)
                copies = 1
            else:
                batch = run[0](batch)
        return batch

    def begins_with_images_of(self, source: str) -> bool:
        """Whether the first transform is one of images under this key, alone."""
        first = self.transforms[0] if len(self.transforms) else None
        return isinstance(first, ImageTransform) and first.source == first.target == source

    def _runs(self) -> Iterator[list[Any]]:
        """Consecutive image transforms that work in place of one key; others one by one."""
        run: list[Any] = []
        for transform in self.transforms:
            joins = isinstance(transform, ImageTransform) and (
                not run or (run[-1].target == transform.source == transform.target)
            )
            if run and not joins:
                yield run
                run = []
            if isinstance(transform, ImageTransform):
                run.append(transform)
            else:
                yield [transform]
        if run:
            yield run

    def _images(
        self, batch: Batch, run: list[ImageTransform], generator: torch.Generator, copies: int
    ) -> Batch:
        """A run of image transforms, with the record of each."""
        first, last = run[0], run[-1]
        if first.source not in batch:
            raise missing(first.source, type(first).__name__, batch)
        value = batch[first.source]
        if not isinstance(value, Tensor) and isinstance(value, (dict, list, tuple)):
            for transform in run:
                batch = transform.transform(batch, generator)
            return batch
        images = check_images(value, first.source, type(first).__name__)
        given = draw_all(run, images, generator, copies)
        batch[last.target] = self._change(images, run, given, copies)
        for transform, mine in zip(run, given, strict=True):
            batch[free_name(type(transform).__name__, batch)] = record(mine)
        return batch

    def _change(
        self, images: Tensor, run: list[ImageTransform], given: list[Parameters], copies: int
    ) -> Tensor:
        """All transforms of a run on all rows."""
        if not self.fuse:
            images = images.repeat(copies, 1, 1, 1)
            for transform, mine in zip(run, given, strict=True):
                images = transform.change(images, mine)
            return as_float(images)
        passes = plan(run)
        cuts = isinstance(passes[0], GeometricPass) and passes[0].crop is not None
        if copies > 1 and not cuts:
            images, copies = images.repeat(copies, 1, 1, 1), 1
        total = len(images) * copies
        compiles = total > 0 and images.device.type in self.compiles_on
        compiler = self._compiler if compiles else None
        step = _rows_at_once(images, run, compiles) or max(1, total)
        parts = [
            run_passes(images, passes, given, range(i, min(i + step, total)), compiler)
            for i in range(0, max(1, total), step)
        ]
        return torch.cat(parts) if len(parts) > 1 else parts[0]


def draw_all(
    run: Sequence[ImageTransform], images: Tensor, generator: torch.Generator, copies: int = 1
) -> list[Parameters]:
    """Draw for every transform of a run, and send it all to the device at once."""
    height, width = images.shape[-2:]
    draws = []
    for transform in run:
        draws.append(transform.draw(len(images) * copies, height, width, generator))
        height, width = transform.output_size(height, width)
    return place(draws, images.device)


def run_passes(
    images: Tensor,
    passes: Sequence[Pass],
    given: Sequence[Parameters],
    rows: range,
    compiler: Compiler | None,
) -> Tensor:
    """Some rows through all passes, to float."""
    given = [mine.slice(rows.start, rows.stop) for mine in given]
    current, owned = images, False
    for number, one in enumerate(passes):
        mine = [given[i] for i in one.places]
        if number == 0 and isinstance(one, GeometricPass) and one.crop is not None:
            after = one.cut(images, mine, rows, compiler)
        else:
            if number == 0:
                current = images[rows.start : rows.stop]
            after = one(current, mine, owned, compiler)
        owned = owned or after is not current
        current = after
    return as_float(current)


def _rows_at_once(images: Tensor, run: Sequence[ImageTransform], compiled: bool) -> int | None:
    """How many rows a processor takes through the chain together; ``None`` for all."""
    if images.device.type != "cpu":
        return None
    height, width = images.shape[-2:]
    for transform in run:
        height, width = transform.output_size(height, width)
    pixels = COMPILED_PIXELS if compiled else EAGER_PIXELS
    return max(1, pixels // (height * width))


class _Function(nn.Module):
    """A plain function as a module, so that chains hold modules only."""

    def __init__(self, function: Transform) -> None:
        super().__init__()
        self.function = function

    def forward(self, batch: Batch) -> Batch:
        """Call it."""
        return self.function(batch)


def as_module(transform: Transform) -> nn.Module:
    """A transform as a module."""
    return transform if isinstance(transform, nn.Module) else _Function(transform)
