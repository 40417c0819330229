"""Where a vision transformer looks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stable_pretraining.pictures._figure import bare, format_of, new_figure, save, show_image

if TYPE_CHECKING:
    from torch import Tensor, nn


def attention_maps(model: nn.Module, images: Tensor) -> Tensor:
    """The attention of the last block, from the class token to the patches.

    Without a class token it is the mean over the patches that look. Mode and weights of the model stay as
    they are.

    Args:
        model: A timm ``VisionTransformer``, or a module that holds one.
        images: ``(N, C, H, W)``.

    Returns:
        ``(N, heads, rows, columns)``, each map's sum at most 1.

    Raises:
        TypeError: If there is no timm transformer in the model.

    Example:
        >>> import timm, torch
        >>> vit = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32)
        >>> attention_maps(vit, torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 3, 2, 2])
    """
    import torch

    vit = transformer_in(model)
    attention = vit.blocks[-1].attn
    seen: list[Tensor] = []
    hook = attention.attn_drop.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    fused, training = attention.fused_attn, vit.training
    attention.fused_attn = False  # the fused kernel never has the weights in one place
    try:
        with torch.no_grad():
            vit.eval().forward_features(images)
    finally:
        hook.remove()
        attention.fused_attn = fused
        vit.train(training)
    prefix = vit.num_prefix_tokens
    to_patches = seen[0][..., prefix:]  # (N, heads, tokens, patches)
    looking = to_patches[:, :, 0] if vit.has_class_token else to_patches[:, :, prefix:].mean(2)
    return looking.unflatten(2, vit.patch_embed.dynamic_feat_size(images.shape[-2:]))


def transformer_in(model: nn.Module) -> Any:
    """The first module of the model that is a timm ``VisionTransformer``."""
    from timm.models import VisionTransformer

    for module in model.modules():
        if isinstance(module, VisionTransformer):
            return module
    raise TypeError(f"{type(model).__name__} holds no timm VisionTransformer: nothing attends.")


def draw_attention(model: nn.Module, images: Tensor, path: str | Path, *, rows: int = 6) -> Path:
    """Draw images (left) and what each head of the last block looks at.

    Args:
        model: A timm ``VisionTransformer``, or a module that holds one.
        images: ``(N, C, H, W)``, as the model takes them.
        path: Where the picture goes; its ending is the format (png, svg, pdf, html).
        rows: Images to draw, at most.

    Returns:
        The path.

    Raises:
        TypeError: If there is no timm transformer in the model.
        ValueError: If the ending is no format.
    """
    format_of(path)
    images = images[:rows]
    maps = attention_maps(model, images).float().cpu().numpy()
    figure = new_figure(1.5 * (maps.shape[1] + 1), 1.5 * len(images) + 0.3)
    grid = figure.subplots(len(images), maps.shape[1] + 1, squeeze=False)
    for row, image, heads in zip(grid, images, maps, strict=True):
        show_image(row[0], image)
        for axes, head in zip(row[1:], heads, strict=True):
            axes.imshow(head, cmap="viridis", interpolation="nearest")
            bare(axes)
    for number, axes in enumerate(grid[0, 1:]):
        axes.set_title(f"head {number}", fontsize=8)
    return save(figure, path, "Attention of the last block")
