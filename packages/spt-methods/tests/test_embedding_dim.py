"""A new width for the embedding, with all other weights as they were."""

import pytest
import torch
from spt_methods.backbones import from_timm, from_torchvision, set_embedding_dim
from torch import nn

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: from_torchvision("resnet18"),
        lambda: from_torchvision("resnet18", num_classes=5),
        lambda: from_torchvision("mobilenet_v3_small", num_classes=5),
        lambda: from_timm("resnet10t", num_classes=0),
        lambda: from_timm("convnext_atto", num_classes=0),
        lambda: from_timm("convnext_atto", num_classes=5),
        lambda: from_timm("mobilenetv3_small_050"),
        lambda: from_timm("swin_tiny_patch4_window7_224", img_size=32, window_size=1),
        lambda: from_timm("vit_tiny_patch16_224", img_size=32, num_classes=3),
    ],
)
def test_the_rest_of_the_network_stays(make):
    torch.manual_seed(0)
    net = make()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    net.train()
    changed = set_embedding_dim(
        net, 7, bias=False, expected_input_shape=(2, 3, 32, 32), expected_output_shape=(2, 7)
    )
    assert changed is net
    assert net.training
    after = net.state_dict()
    kept = [key for key in before if key in after]
    assert len(kept) >= len(before) - 2
    assert all(torch.equal(before[key], after[key]) for key in kept)
    (new,) = [key for key in after if key not in before]
    assert after[new].shape[0] == 7
    assert after[new].abs().sum() > 0
    assert net.eval()(IMAGES).shape == (2, 7)


def test_a_wrong_shape_and_a_missing_head_are_named():
    with pytest.raises(ValueError, match=r"must give \(2, 9\), but gives \(2, 7\)"):
        set_embedding_dim(
            from_torchvision("resnet18"),
            7,
            expected_input_shape=(2, 3, 32, 32),
            expected_output_shape=(2, 9),
        )
    with pytest.raises(ValueError, match="Conv2d has no linear head"):
        set_embedding_dim(nn.Conv2d(3, 3, 3), 7)
