"""Which transform runs, in which order, with which random numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from spt_data._base import SampleTransform
from spt_data._draws import keyed_draws
from spt_data._keys import Path, read, write
from spt_data.datasets import Sample, Transform


class Compose:
    """One transform after the other: ``Compose(a, b, c)``.

    Raises:
        TypeError: If an argument cannot be called.
    """

    def __init__(self, *transforms: Transform) -> None:
        for position, transform in enumerate(transforms):
            if not callable(transform):
                raise TypeError(
                    f"Argument {position} of Compose must be callable, got "
                    f"{type(transform).__name__}; pass transforms one by one, Compose(a, b)."
                )
        self.transforms = transforms

    def __call__(self, sample: Sample) -> Sample:
        """Apply all in order."""
        for transform in self.transforms:
            sample = transform(sample)
        return sample

    def skip(self, sample: Sample) -> Sample:
        """What is left when none is applied: each one's targets and record."""
        for transform in self.transforms:
            sample = _skip(transform, sample)
        return sample

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, self.transforms))})"


def _skip(transform: Transform, sample: Sample) -> Sample:
    skip = getattr(transform, "skip", None)
    return dict(sample) if skip is None else skip(sample)


class WrapTorchTransform(SampleTransform):
    """Any callable of a value, such as a torchvision transform.

    Args:
        transform: From value to value; with several sources, from their list to a list.
        source: Key of the value to transform.
        target: Key of the result.
    """

    def __init__(
        self, transform: Callable[[Any], Any], source: Path = "image", target: Path = "image"
    ) -> None:
        super().__init__(source, target)
        self.transform = transform

    def __call__(self, sample: Sample) -> Sample:
        """A copy of the sample with the result."""
        if isinstance(self.source, str):
            return super().__call__(sample)
        values = self.read(sample)
        try:
            results = list(self.transform(values))
        except Exception as error:
            self.refuse(error, sample)
        return self.write(sample, results)

    def apply(self, value: Any) -> Any:
        """Call it."""
        return self.transform(value)


class Lambda(SampleTransform):
    """Store ``lambd(sample)`` at ``target``.

    Args:
        lambd: From the whole sample to a value.
        source: Accepted for uniformity; the function gets the whole sample.
        target: Key of the result.
    """

    def __init__(
        self, lambd: Callable[[Sample], Any], source: Path = "image", target: Path = "image"
    ) -> None:
        super().__init__(source, target)
        self.lambd = lambd

    def __call__(self, sample: Sample) -> Sample:
        """A copy of the sample with the result."""
        if isinstance(self.target, str):
            written: Sample = write(sample, self.target, self.lambd(sample))
            return written
        return self.write(sample, list(self.lambd(sample)))


class RoutingTransform:
    """The transform that ``router(sample)`` chooses.

    Args:
        router: From a sample to a place in the list or a key of the mapping.
        transforms: List or mapping of transforms.

    Raises:
        KeyError: When called, if the router chooses what is not there.
    """

    def __init__(
        self,
        router: Callable[[Sample], Any],
        transforms: Sequence[Transform] | Mapping[Any, Transform],
    ) -> None:
        self.router = router
        self.transforms = transforms

    def __call__(self, sample: Sample) -> Sample:
        """Apply the one that is chosen."""
        choice = self.router(sample)
        try:
            transform = self.transforms[choice]
        except (KeyError, IndexError):
            there = (
                sorted(map(str, self.transforms))
                if isinstance(self.transforms, Mapping)
                else f"{len(self.transforms)} entries"
            )
            raise KeyError(
                f"RoutingTransform: the router chose {choice!r}, and `transforms` has {there}."
            ) from None
        return transform(sample)

    def __repr__(self) -> str:
        return f"RoutingTransform({self.router!r}, {self.transforms!r})"


class Conditional:
    """A transform for the samples whose flag matches.

    Others get the transform's targets with their sources as they are, and its record of doing
    nothing, so that both kinds collate.

    Args:
        transform: Applied when the flag matches.
        condition_key: Key of the flag.
        apply_on_true: The value of the flag that matches.
    """

    def __init__(
        self, transform: Transform, condition_key: str, apply_on_true: bool = True
    ) -> None:
        self.transform = transform
        self.condition_key = condition_key
        self.apply_on_true = apply_on_true

    def __call__(self, sample: Sample) -> Sample:
        """Apply it or not."""
        flag = bool(read(sample, self.condition_key, type(self).__name__))
        if flag == self.apply_on_true:
            return self.transform(sample)
        return _skip(self.transform, sample)

    def __repr__(self) -> str:
        return f"Conditional({self.transform!r}, {self.condition_key!r}, {self.apply_on_true!r})"


class ControlledTransform:
    """The same random numbers for the same row: any order, any worker, every epoch.

    Args:
        transform: Run with torch's CPU generator seeded by the row; it is restored afterwards.
        seed_offset: Added to the seed.
        key: Key of the row number.

    Raises:
        KeyError: When called, if the sample has no such key.
    """

    def __init__(self, transform: Transform, seed_offset: int = 0, key: str = "sample_idx") -> None:
        self.transform = transform
        self.seed_offset = seed_offset
        self.key = key

    def __call__(self, sample: Sample) -> Sample:
        """Apply it under the row's seed."""
        row = read(sample, self.key, type(self).__name__)
        with keyed_draws(row, self.seed_offset):
            return self.transform(sample)

    def __repr__(self) -> str:
        return f"ControlledTransform({self.transform!r}, {self.seed_offset!r}, {self.key!r})"


class DrawSeed:
    """Leave a random number for what is drawn later, such as the masks of a whole batch.

    Args:
        target: Key of the number, an int of 62 bits.
    """

    def __init__(self, target: str = "mask_seed") -> None:
        self.target = target

    def __call__(self, sample: Sample) -> Sample:
        """A copy of the sample with the number."""
        return {**sample, self.target: int(torch.randint(2**62, ()))}

    def __repr__(self) -> str:
        return f"DrawSeed({self.target!r})"


@contextmanager
def random_seed(seed: int) -> Iterator[None]:
    """Inside, torch's CPU generator is seeded; afterwards it is as it was before.

    Example:
        >>> with random_seed(1):
        ...     first = torch.rand(2)
        >>> with random_seed(1):
        ...     print(torch.equal(first, torch.rand(2)))
        True
    """
    generator = torch.default_generator  # of the CPU alone: no device is touched
    before = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(before)
