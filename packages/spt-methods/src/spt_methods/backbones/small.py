"""Small convolutional networks for small images."""

from __future__ import annotations

from torch import Tensor, nn


class _Residual(nn.Sequential):
    """Adds its input to what its layers make of it."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + super().forward(x)
        return out


class ConvMixer(nn.Sequential):
    """Patches mixed by depthwise and pointwise convolutions; GELU, then BatchNorm, mean pooling.

    Trockman and Kolter, "Patches Are All You Need?", TMLR 2023. https://arxiv.org/abs/2201.09792

    Args:
        in_channels: Channels of the images.
        num_classes: Width of the linear layer; 0 leaves it out.
        dim: Width.
        depth: Blocks.
        kernel_size: Side of the depthwise kernels.
        patch_size: Side of the patches.

    Attributes:
        num_features: ``dim``, the width of the embedding.

    Example:
        >>> import torch
        >>> ConvMixer(num_classes=0, dim=16, depth=2)(torch.zeros(2, 3, 28, 28)).shape
        torch.Size([2, 16])
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        dim: int = 64,
        depth: int = 6,
        kernel_size: int = 9,
        patch_size: int = 7,
    ) -> None:
        def mixed(convolution: nn.Conv2d) -> list[nn.Module]:
            return [convolution, nn.GELU(), nn.BatchNorm2d(dim)]

        layers = mixed(nn.Conv2d(in_channels, dim, patch_size, patch_size))
        for _ in range(depth):
            depthwise = nn.Conv2d(dim, dim, kernel_size, groups=dim, padding="same")
            layers.append(_Residual(*mixed(depthwise)))
            layers += mixed(nn.Conv2d(dim, dim, 1))
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        layers += [nn.Linear(dim, num_classes)] if num_classes else []
        super().__init__(*layers)
        self.num_features = dim


class Resnet9(nn.Sequential):
    """Eight convolutions, two residual pairs and a linear layer, for images from 16 pixels.

    The network of David Page's "How to Train Your ResNet", 2018,
    https://myrtle.ai/learn/how-to-train-your-resnet/, with the widths 64, 128, 256.

    Args:
        num_classes: Width of the linear layer; 0 leaves it out.
        num_channels: Channels of the images.

    Attributes:
        num_features: 1024, the width of the embedding.

    Example:
        >>> import torch
        >>> Resnet9(0, 3)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 1024])
    """

    num_features = 1024

    def __init__(self, num_classes: int, num_channels: int) -> None:
        def conv(inside: int, outside: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(inside, outside, kernel, stride, kernel // 2, bias=False),
                nn.BatchNorm2d(outside, momentum=0.9),
                nn.ReLU(inplace=True),
            )

        layers: list[nn.Module] = [
            conv(num_channels, 64),
            conv(64, 128, 5, 2),
            _Residual(conv(128, 128), conv(128, 128)),
            conv(128, 256),
            nn.MaxPool2d(2),
            _Residual(conv(256, 256), conv(256, 256)),
            nn.AdaptiveMaxPool2d(2),
            nn.Flatten(),
        ]
        super().__init__(*layers, *([nn.Linear(1024, num_classes)] if num_classes else []))
