"""One contract for encoders: a pooled embedding, and on request the tokens it was pooled from."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from spt_methods.backbones.huggingface import HuggingFaceEncoder
from spt_methods.backbones.vit_tokens import Tokens, ViTTokens


def tokens_of(encoder: nn.Module, images: Tensor) -> Tokens:
    """The embedding of images and the tokens below it, for any family of timm.

    Args:
        encoder: A :class:`ViTTokens`, a :class:`HuggingFaceEncoder`, or a timm model without a head: its ``forward_features`` may
            return maps ``(B, C, h, w)`` or ``(B, h, w, C)``, or tokens ``(B, prefix + N, C)``.
        images: Shape ``(B, C, H, W)``.

    Returns:
        Tokens in raster order; convolutional networks have no prefix.

    Raises:
        TypeError: If the encoder has no ``forward_features`` and ``forward_head``.

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
    if not hasattr(model, "forward_features") or not hasattr(model, "forward_head"):
        raise TypeError(
            f"{type(encoder).__name__} does not give its tokens: it needs `forward_features` and "
            "`forward_head`, as timm's models have. Name a timm model as the encoder."
        )
    features = model.forward_features(images)
    embedding = model.forward_head(features, pre_logits=True)
    if features.ndim == 3:
        prefix = int(getattr(model, "num_prefix_tokens", 0))
        height, width = model.patch_embed.patch_size
        grid = (images.shape[-2] // height, images.shape[-1] // width)
        return Tokens(embedding, features[:, :prefix], features[:, prefix:], grid)
    if getattr(model, "output_fmt", "NCHW") == "NHWC":
        features = features.permute(0, 3, 1, 2)
    grid = (features.shape[2], features.shape[3])
    patches = features.flatten(2).mT
    return Tokens(embedding, patches[:, :0], patches, grid)
