"""Schedules: known points, and the same value however a step is reached."""

import copy
import math
import pickle

import pytest
import torch
from spt_optim import (
    CosineDecayer,
    LinearWarmup,
    LinearWarmupCosineAnnealing,
    LinearWarmupCosineAnnealingLR,
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


def cosine_class(optimizer, total_steps, **kwargs):
    return LinearWarmupCosineAnnealingLR(optimizer, total_steps // 5, total_steps, **kwargs)


@pytest.mark.parametrize("factory", [*ALL, cosine_class])
def test_jumping_to_a_step_gives_what_walking_gives(factory):
    walked = rates(factory, 30, total_steps=30)
    assert rates(factory, 13, total_steps=30, start_at=17) == walked[17:30]


@pytest.mark.parametrize("factory", [*ALL, cosine_class])
def test_starting_after_a_step_gives_what_walking_gives(factory):
    walked = rates(factory, 30, total_steps=30, lr=2.0)
    group = {"params": [torch.zeros(1)], "lr": 0.7, "initial_lr": 2.0}
    schedule = factory(torch.optim.SGD([group], lr=9.0), total_steps=30, last_epoch=16)
    assert schedule.get_last_lr()[0] == pytest.approx(walked[17], rel=1e-12)


@pytest.mark.parametrize("factory", [*ALL, cosine_class])
@pytest.mark.parametrize("carry", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_the_saved_state_goes_on_where_it_stopped(factory, carry):
    """The optimizer's and the schedule's state, loaded into fresh ones of another length."""
    walked = rates(factory, 30, total_steps=30)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=2.0)
    schedule = factory(optimizer, total_steps=30)
    for _ in range(11):
        optimizer.step()
        schedule.step()
    saved = carry((optimizer.state_dict(), schedule.state_dict()))
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=5.0)
    schedule = factory(optimizer, total_steps=999)
    optimizer.load_state_dict(saved[0])
    schedule.load_state_dict(saved[1])
    seen = []
    for _ in range(19):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert seen == walked[11:]


@pytest.mark.parametrize("factory", [*ALL, cosine_class])
def test_schedules_can_be_pickled_and_copied(factory):
    schedule = factory(torch.optim.SGD([torch.zeros(1)], lr=2.0), total_steps=30)
    schedule.optimizer.step()
    schedule.step()
    for again in (pickle.loads(pickle.dumps(schedule)), copy.deepcopy(schedule)):
        for _ in range(8):
            again.optimizer.step()
            again.step()
        assert again.get_last_lr()[0] == rates(factory, 10, total_steps=30)[9]


@pytest.mark.parametrize("factory", ALL)
def test_epochs_count_as_well_as_steps(factory):
    """With the epochs as its horizon, a schedule stepped per epoch gives each epoch its rate."""
    epochs, batches = 10, 7
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=2.0)
    schedule = factory(optimizer, total_steps=epochs)
    seen = []
    for _ in range(epochs):
        for _ in range(batches):
            optimizer.step()
            seen.append(optimizer.param_groups[0]["lr"])
        schedule.step()
    assert seen == [rate for rate in rates(factory, epochs, total_steps=epochs) for _ in range(7)]


@pytest.mark.parametrize("factory", ALL)
def test_groups_keep_their_proportions(factory):
    groups = [{"params": [torch.zeros(1)], "lr": lr} for lr in (1.0, 4.0)]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    schedule = factory(optimizer, total_steps=12)
    for _ in range(11):
        optimizer.step()
        schedule.step()
        low, high = schedule.get_last_lr()
        assert high == pytest.approx(4 * low)


def test_the_class_moves_between_absolute_rates():
    seen = rates(
        LinearWarmupCosineAnnealingLR, 12, warmup_steps=4, max_steps=10,
        warmup_start_lr=0.4, eta_min=0.2,
    )  # fmt: skip
    assert seen[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    for step in range(4, 11):
        expected = 0.2 + 0.9 * (1 + math.cos(math.pi * (step - 4) / 6))
        assert seen[step] == pytest.approx(expected)
    assert seen[10:] == pytest.approx([0.2, 0.2])
    torch_cosine = rates(torch.optim.lr_scheduler.CosineAnnealingLR, 10, T_max=10, eta_min=0.2)
    ours = rates(LinearWarmupCosineAnnealingLR, 10, warmup_steps=0, max_steps=10, eta_min=0.2)
    assert ours == pytest.approx(torch_cosine)


@pytest.mark.parametrize("factory", ALL)
def test_a_run_may_consist_of_warmup_alone(factory):
    seen = rates(factory, 5, total_steps=4, peak_step=4, start_factor=0.5)
    assert seen[:4] == pytest.approx([1.0, 1.25, 1.5, 1.75])
    assert all(math.isfinite(rate) for rate in seen)


def test_the_class_names_bad_settings():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    with pytest.raises(ValueError, match="`max_steps` must be >= 1, got 0"):
        LinearWarmupCosineAnnealingLR(optimizer, 0, 0)
    with pytest.raises(ValueError, match=r"`warmup_steps` must be in \[0, 5\], got 6"):
        LinearWarmupCosineAnnealingLR(optimizer, 6, 5)


def test_the_height_of_the_sine_is_gamma():
    assert CosineDecayer(12, n_cycles=1, gamma=0.2)(3) == pytest.approx(0.75 * 1.2)
    flat = CosineDecayer(8, gamma=0.0)
    assert [flat(step) for step in (0, 2, 8, 9)] == [1.0, 0.75, 0.0, 0.0]
    with pytest.raises(ValueError, match=r"`gamma` must be in \[0, 1\], got 1.5"):
        CosineDecayer(8, gamma=1.5)


@pytest.mark.parametrize("factory", ALL)
def test_bad_horizons_are_named(factory):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    with pytest.raises(ValueError, match="`total_steps` must be >= 1, got 0"):
        factory(optimizer, total_steps=0)
    with pytest.raises(ValueError, match=r"`peak_step` must be .* got 11"):
        factory(optimizer, total_steps=10, peak_step=11)
