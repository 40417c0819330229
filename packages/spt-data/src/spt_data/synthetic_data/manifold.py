"""Points on a known manifold and from a known density."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.utils.data
from torch import Tensor

from spt_data.datasets import Sample

Sampler = Callable[[int], Tensor]


def swiss_roll(
    N: int,
    margin: float = 1,
    sampler_time: Sampler | None = None,
    sampler_width: Sampler | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Points of a plane that is rolled up.

    Args:
        N: Number of points.
        margin: Width between neighbouring turns of the roll.
        sampler_time: From ``N`` to turns along the roll, float ``(N,)``; U(0.1, 3) by default.
        sampler_width: From ``N`` to places across it, float ``(N,)``; U(0, 1) by default.
        generator: Of the default samplers.

    Returns:
        Float ``(N, 3)``: the spiral lies in the first and last coordinate.

    Raises:
        ValueError: If ``N`` is not positive.
    """
    if N < 1:
        raise ValueError(f"`N` must be positive, got {N}.")
    uniform = torch.rand(2, N, generator=generator)
    time = uniform[0] * 2.9 + 0.1 if sampler_time is None else sampler_time(N)
    width = uniform[1] if sampler_width is None else sampler_width(N)
    angle = 2 * math.pi * time
    radius = margin * time
    return torch.stack([radius * angle.cos(), width, radius * angle.sin()], 1)


class GMM(torch.utils.data.Dataset[Sample]):
    """Draws from a random mixture of normal distributions, with their log-density.

    Args:
        num_components: Number of components, all equally likely.
        num_samples: Number of draws.
        dim: Dimension.
        seed: Of the mixture and of the draws.

    Attributes:
        model: The mixture, a ``torch.distributions.MixtureSameFamily``.

    Raises:
        ValueError: If a count is not positive.
    """

    def __init__(
        self, num_components: int = 5, num_samples: int = 100, dim: int = 2, seed: int = 0
    ) -> None:
        if min(num_components, num_samples, dim) < 1:
            raise ValueError(
                "`num_components`, `num_samples` and `dim` must be positive, got "
                f"{num_components}, {num_samples}, {dim}."
            )
        generator = torch.Generator().manual_seed(seed)
        means = 3 * torch.randn(num_components, dim, generator=generator)
        scales = 0.5 + torch.rand(num_components, dim, generator=generator)
        self.model = torch.distributions.MixtureSameFamily(
            torch.distributions.Categorical(torch.ones(num_components)),
            torch.distributions.Independent(torch.distributions.Normal(means, scales), 1),
        )
        chosen = torch.randint(num_components, (num_samples,), generator=generator)
        noise = torch.randn(num_samples, dim, generator=generator)
        self.samples = means[chosen] + scales[chosen] * noise
        self.log_likelihoods = self.score(self.samples)

    def score(self, x: Tensor) -> Tensor:
        """Log-density of points ``(..., dim)``."""
        density: Tensor = self.model.log_prob(x)
        return density

    def __len__(self) -> int:
        """Number of draws."""
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        """``sample`` ``(dim,)`` and its ``log_likelihood``."""
        return {"sample": self.samples[index], "log_likelihood": self.log_likelihoods[index]}
