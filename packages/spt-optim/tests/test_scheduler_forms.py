"""Every form of a scheduler's configuration, and the errors for those that are wrong."""

import functools
import inspect

import pytest
import torch
from spt_optim import (
    LinearWarmupCosineAnnealing,
    LinearWarmupCosineAnnealingLR,
    create_scheduler,
)
from torch import nn
from torch.optim import lr_scheduler


def sgd(lr=1.0, momentum=0.9):
    return torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=lr, momentum=momentum)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ("CosineAnnealingLR", "CosineAnnealingLR"),
        ("cosineannealinglr", "CosineAnnealingLR"),
        (torch.optim.lr_scheduler.CosineAnnealingLR, "CosineAnnealingLR"),
        ({"type": "CosineAnnealingLR", "eta_min": 1e-6}, "CosineAnnealingLR"),
        ({"type": "LinearWarmupCosineAnnealing", "peak_step": 0.1}, "LambdaLR"),
        (LinearWarmupCosineAnnealing, "LambdaLR"),
        (functools.partial(LinearWarmupCosineAnnealing, end_lr=0.1), "LambdaLR"),
        ("StepLR", "StepLR"),
        ("ExponentialLR", "ExponentialLR"),
        ("ReduceLROnPlateau", "ReduceLROnPlateau"),
        ({"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 3}, "StepLR"),
        (lambda opt: torch.optim.lr_scheduler.ConstantLR(opt), "ConstantLR"),
        (lambda opt, total_steps: lr_scheduler.StepLR(opt, total_steps), "StepLR"),
        (LinearWarmupCosineAnnealingLR, "LinearWarmupCosineAnnealingLR"),
        ("linearwarmupcosineannealinglr", "LinearWarmupCosineAnnealingLR"),
        ("spt_optim.LinearWarmup", "LambdaLR"),
        ("OneCycleLR", "OneCycleLR"),
    ],
)
def test_scheduler_forms(config, kind):
    optimizer = sgd()
    schedule = create_scheduler(optimizer, config, total_steps=40)
    assert type(schedule).__name__ == kind
    if kind == "CosineAnnealingLR":
        assert schedule.T_max == 40


def test_no_scheduler():
    assert create_scheduler(sgd(), None) is None


def test_what_a_scheduler_lacks_is_named():
    optimizer = sgd()
    with pytest.raises(ValueError, match="Unknown scheduler 'Cosine'; did you mean"):
        create_scheduler(optimizer, "Cosine")
    with pytest.raises(ValueError, match="CosineAnnealingLR needs `T_max`"):
        create_scheduler(optimizer, "CosineAnnealingLR")
    with pytest.raises(TypeError, match=r"MultiStepLR needs \['milestones'\]; got \[\]"):
        create_scheduler(optimizer, "MultiStepLR", total_steps=9)
    with pytest.raises(TypeError, match=r"StepLR takes no argument \['size'\]"):
        create_scheduler(optimizer, {"type": "StepLR", "size": 3})
    with pytest.raises(TypeError, match="got int"):
        create_scheduler(optimizer, 3)


def test_a_function_of_two_arguments_gets_the_module():
    module = nn.Linear(2, 2)

    def two(optimizer, net):
        assert net is module
        return lr_scheduler.ConstantLR(optimizer, factor=0.5)

    def by_name(optimizer, *, module):
        return two(optimizer, module)

    for factory in (two, by_name, functools.partial(by_name)):
        assert create_scheduler(sgd(), factory, module=module).factor == 0.5
        with pytest.raises(ValueError, match="needs `(net|module)`; give it, or give `module`"):
            create_scheduler(sgd(), factory)


def test_one_cycle_takes_the_present_rates_as_its_peak():
    layer = nn.Linear(2, 2)
    groups = [{"params": layer.weight, "lr": 0.5}, {"params": layer.bias, "lr": 0.1}]
    optimizer = torch.optim.SGD(groups, lr=1.0, momentum=0.9)
    schedule = create_scheduler(optimizer, "OneCycleLR", total_steps=100)
    seen = []
    for _ in range(100):
        seen.append(schedule.get_last_lr())
        optimizer.step()
        schedule.step() if len(seen) < 100 else None
    assert [max(rates) for rates in zip(*seen, strict=True)] == pytest.approx([0.5, 0.1])
    assert schedule.total_steps == 100


def test_only_what_is_missing_is_filled_in():
    made = create_scheduler(
        sgd(), {"type": "OneCycleLR", "max_lr": 7.0, "total_steps": 5}, total_steps=9
    )
    assert made.total_steps == 5
    assert made.optimizer.param_groups[0]["max_lr"] == 7.0
    made = create_scheduler(sgd(), "LinearWarmupCosineAnnealingLR", total_steps=1000)
    assert (made.warmup_steps, made.max_steps) == (10, 1000)
    made = create_scheduler(sgd(), {"type": "CosineAnnealingLR", "T_max": 3}, total_steps=9)
    assert made.T_max == 3
    made = create_scheduler(
        sgd(), functools.partial(lr_scheduler.StepLR, step_size=4), total_steps=9
    )
    assert made.step_size == 4


def test_schedules_in_sequence_are_configurations_too():
    config = {
        "type": "SequentialLR",
        "milestones": [2],
        "schedulers": [
            {"type": "ConstantLR", "factor": 0.1, "total_iters": 2},
            {"type": "ExponentialLR", "gamma": 0.5},
        ],
    }
    optimizer = sgd()
    schedule = create_scheduler(optimizer, config)
    seen = []
    for _ in range(4):
        seen.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert seen == pytest.approx([0.1, 0.1, 1.0, 0.5])
    parts = ["ExponentialLR", {"type": "ConstantLR", "factor": 0.5}]
    chained = create_scheduler(sgd(), {"type": "ChainedScheduler", "schedulers": parts})
    assert chained.get_last_lr() == [0.5]


NEEDS = {
    "LambdaLR": {"lr_lambda": lambda step: 1.0},
    "MultiplicativeLR": {"lr_lambda": lambda step: 1.0},
    "MultiStepLR": {"milestones": [2]},
    "CyclicLR": {"base_lr": 0.1, "max_lr": 1.0},
    "CosineAnnealingWarmRestarts": {"T_0": 3},
    "SequentialLR": {"schedulers": ["StepLR"], "milestones": []},
    "ChainedScheduler": {"schedulers": ["StepLR"]},
}
TORCH = [
    name
    for name, value in vars(lr_scheduler).items()
    if inspect.isclass(value)
    and issubclass(value, lr_scheduler.LRScheduler)
    and name not in ("LRScheduler", "_LRScheduler", "SWALR")
]


@pytest.mark.parametrize("name", TORCH)
def test_every_scheduler_of_torch(name):
    optimizer = sgd()
    schedule = create_scheduler(optimizer, {"type": name, **NEEDS.get(name, {})}, total_steps=20)
    assert type(schedule) is getattr(lr_scheduler, name)
    optimizer.step()
    schedule.step(*([1.0] if name == "ReduceLROnPlateau" else []))
