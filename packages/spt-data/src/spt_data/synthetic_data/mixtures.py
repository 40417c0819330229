"""Distributions of noise levels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def _probabilities(name: str, values: Sequence[float] | Tensor, n: int) -> Tensor:
    weights = torch.as_tensor(values, dtype=torch.float64)
    if weights.shape != (n,) or (weights < 0).any() or not math.isclose(float(weights.sum()), 1.0):
        raise ValueError(f"`{name}` must be {n} probabilities that sum to 1, got {list(values)}.")
    return weights


class Categorical:
    """Values with probabilities.

    Args:
        values: What is drawn.
        probabilities: As many, summing to 1.
        generator: Of the draws.

    Raises:
        ValueError: If they are not probabilities of the values.

    Example:
        >>> Categorical([3.0, 5.0], [0.0, 1.0])()
        5.0
    """

    def __init__(
        self,
        values: Sequence[float],
        probabilities: Sequence[float] | Tensor,
        generator: torch.Generator | None = None,
    ) -> None:
        self.values = torch.as_tensor(values)
        self.probabilities = _probabilities("probabilities", probabilities, len(self.values))
        self.generator = generator

    def __call__(self) -> float:
        """One draw."""
        return float(self.sample(()))

    def sample(self, shape: Sequence[int]) -> Tensor:
        """Draws of a shape."""
        shape = tuple(shape)
        chosen = torch.multinomial(
            self.probabilities, math.prod(shape), replacement=True, generator=self.generator
        )
        return self.values[chosen].view(shape)


class ExponentialMixtureNoiseModel:
    """A mixture of exponential distributions, clipped to [0, ``upper_bound``].

    Args:
        rates: Rate of each component.
        prior: Their probabilities.
        upper_bound: Largest value.
        generator: Of the draws.

    Raises:
        ValueError: If a rate is not positive, or the prior does not sum to 1.
    """

    def __init__(
        self,
        rates: Sequence[float],
        prior: Sequence[float],
        upper_bound: float = math.inf,
        generator: torch.Generator | None = None,
    ) -> None:
        if min(rates) <= 0:
            raise ValueError(f"`rates` must be positive, got {list(rates)}.")
        self.component = Categorical(rates, _probabilities("prior", prior, len(rates)), generator)
        self.upper_bound = upper_bound
        self.generator = generator

    def __call__(self) -> float:
        """One draw."""
        return float(self.sample(()))

    def sample(self, shape: Sequence[int]) -> Tensor:
        """Draws of a shape."""
        rates = self.component.sample(shape).float()
        draws = torch.empty(tuple(shape)).exponential_(generator=self.generator) / rates
        return draws.clamp(0, self.upper_bound)


class ExponentialNormalNoiseModel:
    """An exponential and a normal distribution mixed, clipped to [0, ``upper_bound``].

    Args:
        rate: Of the exponential component.
        mean: Of the normal component.
        std: Of the normal component.
        prior: Probabilities of the two.
        upper_bound: Largest value.
        generator: Of the draws.

    Raises:
        ValueError: If ``rate`` or ``std`` is not positive, or the prior does not sum to 1.
    """

    def __init__(
        self,
        rate: float,
        mean: float,
        std: float,
        prior: Sequence[float],
        upper_bound: float = math.inf,
        generator: torch.Generator | None = None,
    ) -> None:
        if rate <= 0 or std <= 0:
            raise ValueError(f"`rate` and `std` must be positive, got {rate} and {std}.")
        self.component = Categorical([0, 1], _probabilities("prior", prior, 2), generator)
        self.rate = rate
        self.mean = mean
        self.std = std
        self.upper_bound = upper_bound
        self.generator = generator

    def __call__(self) -> float:
        """One draw."""
        return float(self.sample(()))

    def sample(self, shape: Sequence[int]) -> Tensor:
        """Draws of a shape."""
        shape = tuple(shape)
        exponential = torch.empty(shape).exponential_(self.rate, generator=self.generator)
        normal = self.mean + self.std * torch.randn(shape, generator=self.generator)
        draws = torch.where(self.component.sample(shape) == 0, exponential, normal)
        return draws.clamp(0, self.upper_bound)
