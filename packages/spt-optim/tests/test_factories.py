"""Every form of an optimizer's configuration, and the errors for those that are wrong."""

import functools
from collections import UserDict, UserList

import pytest
import torch
from spt_optim import (
    LARS,
    create_optimizer,
    parameter_kinds,
    split_params_for_weight_decay,
    undecayed_names,
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
    with pytest.raises(
        TypeError, match=r"SGD takes no argument \['rate'\]; besides the parameters it takes \['lr'"
    ):
        create_optimizer(net().parameters(), {"type": "SGD", "rate": 1})
    with pytest.raises(TypeError, match="a mapping with `type`, got int"):
        create_optimizer(net().parameters(), 3)
    with pytest.raises(TypeError, match=r"optimizer LARS needs \['lr'\]; got \['eta'\]"):
        create_optimizer(net().parameters(), {"type": "LARS", "eta": 1})
    with pytest.raises(
        TypeError, match="`type` of the optimizer must be a name or a class, got int"
    ):
        create_optimizer(net().parameters(), {"type": 3})
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
    "config",
    [
        "AdamW",
        torch.optim.AdamW,
        functools.partial(torch.optim.AdamW),
        lambda groups: torch.optim.AdamW(groups),
        {"_target_": "torch.optim.AdamW"},
        {"type": "AdamW"},
    ],
    ids=["name", "class", "partial", "function", "target", "mapping"],
)
def test_every_form_honours_the_exclusion(config):
    module = net()
    module[0].weight.requires_grad_(False)
    groups = create_optimizer(
        module.parameters(), config, module=module, exclude_bias_norm=True
    ).param_groups
    assert [group["weight_decay"] for group in groups] == [1e-2, 0.0]  # the optimizer's own decay
    assert groups[0]["params"] == [module[2].weight]
    assert len(groups[1]["params"]) == 4


def test_a_mappings_own_word_on_exclusion_wins():
    module = net()
    config = {"type": "AdamW", "exclude_bias_norm": False}
    made = create_optimizer(module.parameters(), config, module=module, exclude_bias_norm=True)
    assert len(made.param_groups) == 1
    frozen = net().requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameter"):
        create_optimizer(frozen.parameters(), "SGD", module=frozen, exclude_bias_norm=True)


def test_exclusion_keeps_the_options_of_given_groups():
    module = net()
    groups = [
        {"params": list(module[0].named_parameters()), "lr": 0.1},
        {"params": module[2].parameters(), "lr": 0.2, "weight_decay": 0.5},
    ]
    made = create_optimizer(groups, "AdamW", module=module, exclude_bias_norm=True)
    found = [(group["lr"], group["weight_decay"]) for group in made.param_groups]
    assert found == [(0.1, 1e-2), (0.1, 0.0), (0.2, 0.5), (0.2, 0.0)]


def test_the_layer_decides_what_is_a_norm_not_the_name():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.normal_proj = nn.Linear(2, 2, bias=False)
            self.second = nn.LayerNorm((2, 2))
            self.cls_token = nn.Parameter(torch.zeros(1, 1, 2))
            self.pos_embed = nn.Parameter(torch.zeros(1, 5, 2))
            self.position_embeddings = nn.Embedding(3, 2)
            self.gamma = nn.Parameter(torch.ones(2))

    kinds = parameter_kinds(Net())
    assert kinds == {
        "cls_token": "token",
        "pos_embed": "position",
        "gamma": "bias",
        "normal_proj.weight": "weight",
        "second.weight": "norm",
        "second.bias": "norm",
        "position_embeddings.weight": "position",
    }
    assert undecayed_names(Net()) == set(kinds) - {"normal_proj.weight"}
    named = [
        (name, p) for name, p in Net().named_parameters() if "token" in name or "embed" in name
    ]
    (plain,) = split_params_for_weight_decay(named, 0.1)  # by name alone, too
    assert plain["weight_decay"] == 0.0
    assert len(plain["params"]) == 3


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(2), nn.GroupNorm(1, 2), nn.RMSNorm((2, 2))])
def test_lars_leaves_out_the_parameters_of_norms_whatever_their_shape(norm):
    module = nn.Sequential(nn.Linear(2, 2), norm)
    made = create_optimizer(module.parameters(), {"type": "LARS", "lr": 1}, module=module)
    left_out = {
        id(p) for group in made.param_groups if group.get("exclude") for p in group["params"]
    }
    assert left_out == {id(module[0].bias), *map(id, norm.parameters())}


def test_lars_exclusion_can_be_turned_off_or_given_by_the_groups():
    module = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm((2, 2)))
    config = {"type": "LARS", "lr": 1, "exclude_bias_n_norm": False}
    made = create_optimizer(module.parameters(), config, module=module)
    assert [group.get("exclude") for group in made.param_groups] == [None]
    groups = [{"params": module[1].parameters(), "exclude": False}]
    made = create_optimizer(groups, functools.partial(LARS, lr=1), module=module)
    assert [group["exclude"] for group in made.param_groups] == [False]


def test_lars_without_decay_on_tokens_still_scales_them():
    module = nn.Module()
    module.cls_token = nn.Parameter(torch.ones(1, 1, 4))
    config = {"type": "LARS", "lr": 1, "weight_decay": 0.1, "exclude_bias_norm": True}
    (group,) = create_optimizer(module.parameters(), config, module=module).param_groups
    assert group["weight_decay"] == 0.0
    assert "exclude" not in group


def test_containers_of_a_configuration_library_stay_out_of_the_state():
    seen = []

    def make(params, betas, nested):
        seen.extend([betas, nested])
        return torch.optim.SGD(params, lr=1.0)

    config = {"type": make, "betas": UserList([0.9, 0.95]), "nested": UserDict({"a": UserList()})}
    create_optimizer(net().parameters(), UserDict(config))
    assert [type(value) for value in (*seen, seen[1]["a"])] == [list, dict, list]
