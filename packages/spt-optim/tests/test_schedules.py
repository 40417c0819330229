"""Schedules: known points, and the same value however a step is reached."""

import math

import pytest
import torch
from spt_optim import (
    CosineDecayer,
    LinearWarmup,
    LinearWarmupCosineAnnealing,
    LinearWarmupCyclicAnnealing,
    LinearWarmupThreeStepsAnnealing,
)

ALL = [
    LinearWarmup,
    LinearWarmupCosineAnnealing,
    LinearWarmupCyclicAnnealing,
    LinearWarmupThreeStepsAnnealing,
]


def rates(factory, steps, *, start_at=None, lr=2.0, **kwargs):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=lr)
    schedule = factory(optimizer, **kwargs)
    if start_at is not None:
        schedule.load_state_dict({**schedule.state_dict(), "last_epoch": start_at - 1})
        optimizer.step()
        schedule.step()
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_warmup_then_constant():
    seen = rates(LinearWarmup, 8, total_steps=8, start_factor=0.5, peak_step=4)
    assert seen == pytest.approx([1.0, 1.25, 1.5, 1.75, 2.0, 2.0, 2.0, 2.0])


def test_cosine_ends_at_its_end_and_stays():
    seen = rates(LinearWarmupCosineAnnealing, 16, total_steps=12, peak_step=2, end_lr=0.2)
    for step in range(2, 13):
        expected = 0.2 + 0.5 * (2.0 - 0.2) * (1 + math.cos(math.pi * (step - 2) / 10))
        assert seen[step] == pytest.approx(expected)
    assert seen[12:] == pytest.approx([0.2] * 4)


def test_each_group_ends_at_the_same_rate():
    optimizer = torch.optim.SGD(
        [{"params": [torch.zeros(1)], "lr": lr} for lr in (1.0, 4.0)], lr=1.0
    )
    schedule = LinearWarmupCosineAnnealing(optimizer, total_steps=5, end_lr=0.5)
    for _ in range(5):
        optimizer.step()
        schedule.step()
    assert schedule.get_last_lr() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("total", [100, 101, 108])
def test_three_steps_drop_whatever_the_length(total):
    seen = rates(LinearWarmupThreeStepsAnnealing, total, total_steps=total, gamma=0.5, lr=1.0)
    top = int(0.05 * total)
    assert sorted({round(rate, 6) for rate in seen[top:]}) == [0.125, 0.25, 0.5, 1.0]
    for share, level in ((0.4, 0.5), (0.6, 0.25), (0.8, 0.125)):
        assert seen[top + round(share * (total - top))] == pytest.approx(level)


def test_cyclic_follows_its_decayer():
    seen = rates(LinearWarmupCyclicAnnealing, 20, total_steps=20, peak_step=5, lr=1.0)
    assert seen[5:] == pytest.approx([CosineDecayer(15)(step) for step in range(15)])
    assert CosineDecayer(10)(10) == 0.0
    assert CosineDecayer(12, n_cycles=1)(3) == pytest.approx(0.75 * 1.5)


@pytest.mark.parametrize("factory", ALL)
def test_jumping_to_a_step_gives_what_walking_gives(factory):
    walked = rates(factory, 30, total_steps=30)
    assert rates(factory, 13, total_steps=30, start_at=17) == pytest.approx(walked[17:])


@pytest.mark.parametrize("factory", ALL)
def test_bad_horizons_are_named(factory):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    with pytest.raises(ValueError, match="`total_steps` must be >= 1, got 0"):
        factory(optimizer, total_steps=0)
    with pytest.raises(ValueError, match=r"`peak_step` must be .* got 11"):
        factory(optimizer, total_steps=10, peak_step=11)
