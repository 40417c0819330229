"""One contract for encoders: a pooled embedding, and on request the tokens it was pooled from."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchvision.models import VisionTransformer

from spt_methods.backbones.huggingface import HuggingFaceEncoder
from spt_methods.backbones.vit_tokens import Tokens, ViTTokens


def tokens_of(encoder: nn.Module, images: Tensor) -> Tokens:
    """The embedding of images and the tokens below it, for any family of timm.

    Args:
        encoder: A :class:`ViTTokens`, a :class:`HuggingFaceEncoder`, or a model of timm or torchvision
            without a head. What it pools may be maps ``(B, C, h, w)`` or ``(B, h, w, C)``, or tokens
            ``(B, prefix + N, C)``.
        images: Shape ``(B, C, H, W)``.

    Returns:
        Tokens in raster order; convolutional networks have no prefix.

    Raises:
        TypeError: If it is none of them.

    Example:
        >>> import timm, torch
        >>> tokens_of(timm.create_model("resnet10t"), torch.zeros(2, 3, 64, 64)).patches.shape
        torch.Size([2, 4, 512])
    """
    if isinstance(encoder, ViTTokens):
        out: Tokens = encoder(images)
        return out
    if isinstance(encoder, HuggingFaceEncoder):
        return encoder.tokens(images)
    model: Any = encoder
    if hasattr(model, "forward_features") and hasattr(model, "forward_head"):
        return _tokens_of_timm(model, images)
    if isinstance(model, VisionTransformer):
        embedding, tokens = _with_output_of(model, model.encoder, images)
        rows, columns = (side // model.patch_size for side in images.shape[-2:])
        return Tokens(embedding, tokens[:, :1], tokens[:, 1:], (rows, columns))
    if isinstance(
        getattr(model, "avgpool", None), nn.Module
    ):  # torchvision's convolutional ones, Swin
        embedding, maps = _with_input_of(model, model.avgpool, images)
        return _tokens_of_maps(embedding, maps)
    raise TypeError(
        f"{type(encoder).__name__} does not give its tokens: it needs `forward_features` and "
        "`forward_head`, as timm's models have, or `avgpool`, as torchvision's. Name a timm model as "
        "the encoder."
    )


def _tokens_of_timm(model: Any, images: Tensor) -> Tokens:
    features = model.forward_features(images)
    embedding = model.forward_head(features, pre_logits=True)
    if features.ndim == 3:
        prefix = int(getattr(model, "num_prefix_tokens", 0))
        height, width = model.patch_embed.feat_ratio(as_scalar=False)
        grid = (images.shape[-2] // height, images.shape[-1] // width)
        return Tokens(embedding, features[:, :prefix], features[:, prefix:], grid)
    if getattr(model, "output_fmt", "NCHW") == "NHWC":
        features = features.permute(0, 3, 1, 2)
    return _tokens_of_maps(embedding, features)


def _tokens_of_maps(embedding: Tensor, maps: Tensor) -> Tokens:
    patches = maps.flatten(2).mT
    return Tokens(embedding, patches[:, :0], patches, (maps.shape[2], maps.shape[3]))


def _with_output_of(model: nn.Module, part: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    seen: list[Tensor] = []
    with part.register_forward_hook(lambda _, __, output: seen.append(output)):
        return model(images), seen[0]


def _with_input_of(model: nn.Module, part: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    seen: list[Tensor] = []
    with part.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
        return model(images), seen[0]
