"""The stem of a ResNet for small images."""

from __future__ import annotations

from loguru import logger
from torch import nn


def use_low_resolution_stem(model: nn.Module, name: str, trained: bool = False) -> nn.Module:
    """Replace a ResNet's stem by a 3x3 convolution of stride 1 without pooling, in place.

    As SimCLR does for CIFAR-10 (appendix B.9). A pretrained stem cannot be kept: its kernel has
    another size.

    Args:
        model: A ResNet of torchvision or timm.
        name: What to call it in messages.
        trained: Whether it has pretrained weights; that the stem's are lost is then told.

    Raises:
        ValueError: If the model has no such stem.
    """
    conv = getattr(model, "conv1", None)
    if not isinstance(conv, nn.Conv2d) or not isinstance(
        getattr(model, "maxpool", None), nn.Module
    ):
        raise ValueError(
            f"`low_resolution` needs a ResNet with a convolution `conv1` and `maxpool`; {name!r} has "
            "another stem. Leave it out, or choose a model such as 'resnet18'."
        )
    if trained:
        logger.warning(
            f"{name!r} loses the pretrained weights of its stem to `low_resolution`; the new stem "
            "starts at random."
        )
    stem = nn.Conv2d(conv.in_channels, conv.out_channels, 3, 1, 1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    model.conv1 = stem
    model.maxpool = nn.Identity()
    return model
