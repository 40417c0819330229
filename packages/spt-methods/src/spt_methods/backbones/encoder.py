"""The encoder of a method: named, or given as a module."""

from __future__ import annotations

from typing import Any

import timm
from torch import nn

from spt_methods.backbones.timm import from_timm
from spt_methods.backbones.vit_tokens import ViTTokens

# timm's files of transformers for images of several sizes, and what allows it
ANY_SIZE: dict[str, dict[str, Any]] = {
    "vision_transformer": {"dynamic_img_size": True},
    "eva": {"dynamic_img_size": True},
    "deit": {"dynamic_img_size": True},
    "swin_transformer": {"strict_img_size": False},
    "swin_transformer_v2": {"strict_img_size": False},
}


def build_encoder(
    encoder: str | nn.Module,
    *,
    low_resolution: bool = False,
    pretrained: bool = False,
    in_chans: int = 3,
    image_size: int | None = None,
    drop_path_rate: float = 0.0,
    crops: bool = False,
    tokens: bool | str = False,
    **settings: Any,
) -> nn.Module:
    """An encoder without a head.

    Args:
        encoder: A timm model's name, or a module that has ``num_features`` and returns ``(N, F)``.
        low_resolution: Replace a ResNet's stem by one for images of about 32 pixels.
        pretrained: Load timm's weights.
        in_chans: Channels of the images.
        image_size: Side of the images, for models whose positions depend on it.
        drop_path_rate: Stochastic depth.
        crops: Let a transformer see images of several sizes (timm's ``dynamic_img_size``, for Swin
            ``strict_img_size=False``).
        tokens: Make it a :class:`ViTTokens`, which returns tokens too; with a mask token if
            ``"mask"``. A module that is one already is taken as it is.
        **settings: Further arguments of ``timm.create_model``.

    Raises:
        ValueError: If a module has no ``num_features``, or comes with settings that only a named
            model can take.
    """
    if isinstance(encoder, str):
        given: dict[str, Any] = {"in_chans": in_chans, "pretrained": pretrained, **settings}
        given.update({"img_size": image_size} if image_size is not None else {})
        given.update({"drop_path_rate": drop_path_rate} if drop_path_rate else {})
        given = {**(any_size_of(encoder) if crops else {}), **given}
        if tokens:
            return ViTTokens(encoder, mask_token=tokens == "mask", **given)
        return from_timm(encoder, low_resolution=low_resolution, **given)
    named_only = {
        "low_resolution": low_resolution,
        "pretrained": pretrained,
        "in_chans": in_chans != 3,
        "image_size": image_size is not None,
        "drop_path_rate": drop_path_rate,
        **dict.fromkeys(settings, True),
    }
    if any(named_only.values()):
        raise ValueError(
            f"Settings of encoders given by name came with the module {type(encoder).__name__}, "
            f"which has its own: {[name for name, given in named_only.items() if given]}. Make the "
            "module with them."
        )
    if tokens and not isinstance(encoder, ViTTokens):
        encoder = ViTTokens(encoder, mask_token=tokens == "mask")
    width_of(encoder)
    return encoder


def any_size_of(name: str) -> dict[str, Any]:
    """What makes a transformer of timm's take images of several sizes; nothing for other networks."""
    if not timm.is_model(name):
        return {}
    return ANY_SIZE.get(timm.model_entrypoint(name).__module__.rpartition(".")[2], {})


def width_of(encoder: nn.Module) -> int:
    """The width of what an encoder returns.

    Raises:
        ValueError: If it does not say, by an integer ``num_features``.
    """
    # some of timm's heads have a layer before the classifier, after which the width is another
    features = getattr(encoder, "head_hidden_size", None) or getattr(encoder, "num_features", None)
    if not isinstance(features, int):
        raise ValueError(
            f"The encoder {type(encoder).__name__} needs an integer attribute `num_features`, the "
            "width of what it returns."
        )
    return features


def encoder_label(encoder: str | nn.Module) -> str:
    """How to record an encoder among the hyper-parameters."""
    return encoder if isinstance(encoder, str) else type(encoder).__name__
