"""Names of blocks, for reading features inside a network."""

import pytest
import torch
from spt_methods.backbones import HiddenStateExtractor, block_names
from torch import nn
from torchvision.models import resnet18


def test_blocks_of_the_usual_families():
    stages = [f"layer{i}.{j}" for i in range(1, 5) for j in range(2)]
    assert block_names(resnet18()) == stages
    assert block_names("resnet18") == stages
    assert block_names("vit_tiny_patch16_224") == [f"blocks.{i}" for i in range(12)]
    assert block_names("convnext_atto")[-4:] == [f"stages.{i}" for i in range(4)]


def test_they_are_where_features_are_read():
    model = nn.ModuleDict({"body": nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6))})
    model.forward = lambda x: model["body"](x)
    names = block_names(model)
    assert names == ["body.0", "body.2"]  # without the one that has no weights
    states = HiddenStateExtractor(model, names)(torch.zeros(2, 4))["hidden_states"]
    assert {name: tuple(x.shape) for name, x in states.items()} == {
        "body.0": (2, 5),
        "body.2": (2, 6),
    }


def test_a_network_without_blocks_is_an_error():
    with pytest.raises(ValueError, match="Linear has no ModuleList or Sequential with weights"):
        block_names(nn.Linear(2, 2))
