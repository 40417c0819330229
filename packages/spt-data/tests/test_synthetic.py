"""Synthetic data and noise: known values, moments, seeds."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from spt_data import manifold, noise, synthetic_data
from spt_data.synthetic_data import (
    GMM,
    Categorical,
    ExponentialMixtureNoiseModel,
    ExponentialNormalNoiseModel,
    MinariEpisodeDataset,
    MinariStepsDataset,
    generate_perlin_noise_2d,
    perlin_noise_3d,
    swiss_roll,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_module_has_its_other_names():
    assert noise is manifold is synthetic_data


def test_a_roll_winds_with_its_margin():
    points = swiss_roll(200, margin=2, generator=seeded())
    assert points.shape == (200, 3)
    turns = torch.full((1,), 1.25)
    (point,) = swiss_roll(1, 2, lambda n: turns, lambda n: torch.zeros(n))
    torch.testing.assert_close(point, torch.tensor([0.0, 0.0, 2.5]), atol=1e-5, rtol=0)
    assert torch.equal(points, swiss_roll(200, margin=2, generator=seeded()))


def test_planar_noise_vanishes_at_the_corners_of_its_cells():
    field = generate_perlin_noise_2d((32, 48), (4, 6), generator=seeded())
    assert field.shape == (32, 48)
    torch.testing.assert_close(field[::8, ::8], torch.zeros(4, 6))
    assert 0.1 < field.std() < 0.6
    steps = torch.cat([field.diff(dim=0).flatten(), field.diff(dim=1).flatten()])
    assert steps.abs().max() < 0.5  # it is smooth
    assert torch.equal(field, generate_perlin_noise_2d((32, 48), (4, 6), generator=seeded()))
    two = generate_perlin_noise_2d((32, 48), (4, 6), octaves=2, generator=seeded())
    rest = two - field
    torch.testing.assert_close(rest[::4, ::4], torch.zeros(8, 12), atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="must be positive"):
        generate_perlin_noise_2d((0, 4), (1, 1))


def test_spatial_noise_is_a_function_of_the_point():
    x = np.linspace(-3, 3, 50)
    values = perlin_noise_3d(x, 0.3, x[:, None], seed=4)
    assert values.shape == (50, 50)
    assert torch.equal(values, perlin_noise_3d(x, 0.3, x[:, None], seed=4))
    assert not torch.equal(values, perlin_noise_3d(x, 0.3, x[:, None], seed=5))
    assert values.min() >= 0
    assert values.max() <= 1
    assert float(perlin_noise_3d(x[7], 0.3, x[9], seed=4)) == float(values[9, 7])
    fine = perlin_noise_3d(np.linspace(0, 4, 4001), 0.2, 0.7)
    assert fine.diff().abs().max() < 0.005  # without a jump between cells


def test_a_mixture_knows_its_density():
    data = GMM(num_components=3, num_samples=4000, dim=1, seed=2)
    grid = torch.linspace(-30, 30, 6001)[:, None]
    assert float(data.score(grid).exp().sum() * 0.01) == pytest.approx(1, abs=1e-3)
    mean = float((data.score(grid).exp() * grid[:, 0]).sum() * 0.01)
    assert abs(float(data.samples.mean()) - mean) < 4 * float(data.samples.std()) / 4000**0.5
    torch.testing.assert_close(data[3]["log_likelihood"], data.score(data[3]["sample"]))
    assert torch.equal(data.samples, GMM(3, 4000, 1, seed=2).samples)


def test_noise_levels_have_their_means():
    draws = Categorical([1.0, 4.0], [0.25, 0.75], seeded()).sample((40, 100))
    assert draws.shape == (40, 100)
    assert abs(float((draws == 4).float().mean()) - 0.75) < 4 * math.sqrt(0.1875 / 4000)
    model = ExponentialMixtureNoiseModel([1.0, 4.0], [0.5, 0.5], generator=seeded())
    draws = model.sample((8000,))
    assert float(draws.mean()) == pytest.approx(0.5 * 1 + 0.5 / 4, abs=0.05)
    clipped = ExponentialMixtureNoiseModel([0.1], [1.0], upper_bound=2.0, generator=seeded())
    assert clipped.sample((100,)).max() == 2
    both = ExponentialNormalNoiseModel(2.0, 5.0, 0.1, [0.5, 0.5], generator=seeded())
    draws = both.sample((8000,))
    assert float(draws.mean()) == pytest.approx(0.5 * 0.5 + 0.5 * 5, abs=0.1)
    assert draws.min() >= 0
    assert isinstance(both(), float)
    with pytest.raises(ValueError, match="`prior` must be 2 probabilities that sum to 1"):
        ExponentialMixtureNoiseModel([1.0, 2.0], [0.5, 0.6])
    with pytest.raises(ValueError, match="`rates` must be positive"):
        ExponentialMixtureNoiseModel([0.0], [1.0])


def episodes(lengths=(3, 1, 4)):
    """Each step's values are 10 times its episode plus its place."""
    made = []
    for number, length in enumerate(lengths):
        steps = 10 * number + np.arange(length)
        ends = np.arange(length) == length - 1
        made.append(
            SimpleNamespace(
                observations=np.append(steps, -1), actions=steps, rewards=steps,
                terminations=ends, truncations=np.zeros(length, bool),
            )
        )  # fmt: skip
    return made


def test_windows_stay_inside_their_episodes():
    data = MinariStepsDataset(episodes(), num_steps=2)
    assert len(data) == 8 - 3  # steps minus one for each episode
    assert [window["actions"].tolist() for window in (data[i] for i in range(5))] == [
        [0, 1], [1, 2], [20, 21], [21, 22], [22, 23],
    ]  # fmt: skip
    assert data[-1]["terminations"].tolist() == [False, True]
    assert data[1]["observations"].tolist() == [1, 2]
    with pytest.raises(IndexError, match="Window 5 is out of range for 5 windows"):
        data[5]
    with pytest.raises(ValueError, match="No episode has `num_steps` = 9 steps"):
        MinariStepsDataset(episodes(), num_steps=9)


def test_every_step_is_given_once():
    data = MinariEpisodeDataset(episodes())
    assert [int(data[i]["rewards"]) for i in range(len(data))] == [0, 1, 2, 10, 20, 21, 22, 23]
    assert data[3]["sample_idx"] == 3
