"""The encoder of a method: named, or given as a module."""

from __future__ import annotations

from torch import nn

from spt_methods.backbones.timm import from_timm


def build_encoder(
    encoder: str | nn.Module,
    *,
    low_resolution: bool = False,
    pretrained: bool = False,
    in_chans: int = 3,
    image_size: int | None = None,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """An encoder without a head.

    Args:
        encoder: A timm model's name, or a module that has ``num_features`` and returns ``(N, F)``.
        low_resolution: Replace a ResNet's stem by one for images of about 32 pixels.
        pretrained: Load timm's weights.
        in_chans: Channels of the images.
        image_size: Side of the images, for models whose positions depend on it.
        drop_path_rate: Stochastic depth.

    Raises:
        ValueError: If a module has no ``num_features``, or comes with settings that only a named
            model can take.
    """
    if isinstance(encoder, str):
        sized = {} if image_size is None else {"img_size": image_size}
        dropped = {"drop_path_rate": drop_path_rate} if drop_path_rate else {}
        return from_timm(
            encoder,
            low_resolution=low_resolution,
            pretrained=pretrained,
            in_chans=in_chans,
            num_classes=0,
            **sized,
            **dropped,
        )
    if low_resolution or pretrained or drop_path_rate:
        raise ValueError(
            "`low_resolution`, `pretrained` and `drop_path_rate` are for encoders given by name; "
            f"got the module {type(encoder).__name__}, which has its own."
        )
    width_of(encoder)
    return encoder


def width_of(encoder: nn.Module) -> int:
    """The width of what an encoder returns.

    Raises:
        ValueError: If it does not say, by an integer ``num_features``.
    """
    features = getattr(encoder, "num_features", None)
    if not isinstance(features, int):
        raise ValueError(
            f"The encoder {type(encoder).__name__} needs an integer attribute `num_features`, the "
            "width of what it returns."
        )
    return features


def encoder_label(encoder: str | nn.Module) -> str:
    """How to record an encoder among the hyper-parameters."""
    return encoder if isinstance(encoder, str) else type(encoder).__name__
