"""Every form of a configuration, and the errors for those that are wrong."""

import functools
from collections import UserDict

import pytest
import torch
from spt_optim import (
    LARS,
    LinearWarmupCosineAnnealing,
    create_optimizer,
    create_scheduler,
    split_params_for_weight_decay,
)
from torch import nn


def net():
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))


@pytest.mark.parametrize(
    ("config", "kind", "lr"),
    [
        ("SGD", torch.optim.SGD, 1e-3),
        ("adamw", torch.optim.AdamW, 1e-3),
        (torch.optim.Adam, torch.optim.Adam, 1e-3),
        ({"lr": 0.5}, torch.optim.AdamW, 0.5),
        ({"type": "LARS", "lr": 5, "weight_decay": 1e-6}, LARS, 5),
        ({"type": LARS, "lr": 2}, LARS, 2),
        (UserDict({"type": "Adam", "lr": 0.2}), torch.optim.Adam, 0.2),
        ("torch.optim.RMSprop", torch.optim.RMSprop, 1e-2),
        ({"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.3}, torch.optim.SGD, 0.3),
        (functools.partial(torch.optim.SGD, lr=0.7), torch.optim.SGD, 0.7),
        (lambda params: torch.optim.Adam(params, lr=0.9), torch.optim.Adam, 0.9),
    ],
)
def test_optimizer_forms(config, kind, lr):
    optimizer = create_optimizer(net().parameters(), config)
    assert type(optimizer) is kind
    assert optimizer.param_groups[0]["lr"] == lr


def test_unknown_optimizers_list_the_near_ones():
    with pytest.raises(ValueError, match=r"Unknown optimizer 'adamww'; did you mean 'AdamW'"):
        create_optimizer(net().parameters(), "adamww")
    with pytest.raises(ValueError, match=r"nothing at 'torch.optim.Nope'"):
        create_optimizer(net().parameters(), "torch.optim.Nope")


def test_wrong_arguments_and_kinds_are_named():
    with pytest.raises(TypeError, match=r"SGD takes no argument \['rate'\]; it takes \['lr'"):
        create_optimizer(net().parameters(), {"type": "SGD", "rate": 1})
    with pytest.raises(TypeError, match="a mapping with `type`, got int"):
        create_optimizer(net().parameters(), 3)
    with pytest.raises(TypeError, match="must return a torch Optimizer, got str"):
        create_optimizer(net().parameters(), lambda params: "adam")


def test_biases_and_norms_take_no_decay():
    module = net()
    optimizer = create_optimizer(
        module.parameters(),
        {"type": "SGD", "lr": 1.0, "weight_decay": 0.1, "exclude_bias_norm": True},
        module=module,
    )
    decayed, plain = optimizer.param_groups
    assert [p.shape for p in decayed["params"]] == [(3, 2), (1, 3)]
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert len(plain["params"]) == 4
    with pytest.raises(ValueError, match="needs `named_params` or `module`"):
        create_optimizer(module.parameters(), {"exclude_bias_norm": True})


def test_decay_is_decided_by_the_layer_and_its_own_word():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.pos_embed = nn.Parameter(torch.zeros(1, 4, 3))
            self.normal_proj = nn.Linear(3, 3)
            self.frozen = nn.Parameter(torch.zeros(2, 2), requires_grad=False)

        def no_weight_decay(self):
            return {"pos_embed"}

    module = Tokens()
    decayed, plain = split_params_for_weight_decay(module.named_parameters(), 0.1, module=module)
    assert decayed["params"] == [module.normal_proj.weight]
    assert len(plain["params"]) == 2
    with pytest.raises(ValueError, match="no trainable parameter"):
        split_params_for_weight_decay([("frozen", module.frozen)], 0.1)


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
    ],
)
def test_scheduler_forms(config, kind):
    optimizer = torch.optim.SGD(net().parameters(), lr=1.0)
    schedule = create_scheduler(optimizer, config, total_steps=40)
    assert type(schedule).__name__ == kind
    if kind == "CosineAnnealingLR":
        assert schedule.T_max == 40


def test_no_scheduler():
    assert create_scheduler(torch.optim.SGD(net().parameters(), lr=1.0), None) is None


def test_what_a_scheduler_lacks_is_named():
    optimizer = torch.optim.SGD(net().parameters(), lr=1.0)
    with pytest.raises(ValueError, match="Unknown scheduler 'Cosine'; did you mean"):
        create_scheduler(optimizer, "Cosine")
    with pytest.raises(ValueError, match="CosineAnnealingLR needs `T_max`"):
        create_scheduler(optimizer, "CosineAnnealingLR")
    with pytest.raises(TypeError, match="MultiStepLR needs the argument `milestones`"):
        create_scheduler(optimizer, "MultiStepLR", total_steps=9)
    with pytest.raises(TypeError, match=r"StepLR takes no argument \['size'\]"):
        create_scheduler(optimizer, {"type": "StepLR", "size": 3})
    with pytest.raises(TypeError, match="got int"):
        create_scheduler(optimizer, 3)
