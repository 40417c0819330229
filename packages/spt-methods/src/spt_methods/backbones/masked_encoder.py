"""A timm vision transformer that sees a part of its patches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from spt_methods.backbones.timm import from_timm
from spt_methods.masking.patches import MaskingOutput, keep_tokens

Masking = Callable[[Tensor, int, int], MaskingOutput]


class MaskedEncoderOutput(NamedTuple):
    """Tokens of the visible patches.

    Attributes:
        encoded: Prefix tokens, then the kept patches, shape ``(B, prefix + n, D)``.
        mask: 1 where hidden, shape ``(B, N)``.
        ids_keep: Places of the kept patches, shape ``(B, n)``.
        grid_size: Rows and columns of the grid.
    """

    encoded: Tensor
    mask: Tensor
    ids_keep: Tensor
    grid_size: tuple[int, int]


class MaskedEncoder(nn.Module):
    """Runs a timm ViT on the patches that a masking leaves, or with a mask token in their place.

    The transformer's own modules are used in timm's order (patch embedding, positions, prefix
    tokens, pre-norm, blocks, norm), so without a mask the result is timm's ``forward_features``.

    Args:
        model_or_model_name: A timm ``VisionTransformer``, or the name of one.
        masking: A module of :mod:`spt_methods.masking`; only used in training mode.
        pretrained: Load timm's weights.
        img_size: Side, or height and width, of the images.
        patch_size: Side of the patches.
        dynamic_img_size: Accept images of other sizes.
        norm_layer: Class of the norms.

    Attributes:
        vit: The transformer.
        embed_dim: Width of the tokens.
        num_prefix_tokens: Class and register tokens.

    Raises:
        TypeError: If the model is no ``VisionTransformer`` of timm.
        ValueError: If a given model comes with settings for making one.
    """

    def __init__(
        self,
        model_or_model_name: str | nn.Module = "vit_base_patch16_224",
        masking: nn.Module | None = None,
        pretrained: bool = False,
        img_size: int | tuple[int, int] | None = None,
        patch_size: int | None = None,
        dynamic_img_size: bool = False,
        norm_layer: type[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        settings = {
            "img_size": img_size,
            "patch_size": patch_size,
            "dynamic_img_size": dynamic_img_size or None,
            "norm_layer": norm_layer,
        }
        given = {name: value for name, value in settings.items() if value is not None}
        self.vit = _transformer(model_or_model_name, pretrained, given)
        self.masking = masking
        self.embed_dim = self.num_features = int(self.vit.embed_dim)
        self.num_prefix_tokens = int(self.vit.num_prefix_tokens)

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of a patch."""
        height, width = self.vit.patch_embed.patch_size
        return int(height), int(width)

    @property
    def patch_size_h(self) -> int:
        """Height of a patch."""
        return self.patch_size[0]

    @property
    def patch_size_w(self) -> int:
        """Width of a patch."""
        return self.patch_size[1]

    @property
    def default_grid(self) -> tuple[int, int]:
        """Rows and columns of the grid at the transformer's own image size."""
        rows, columns = self.vit.patch_embed.grid_size
        return int(rows), int(columns)

    @property
    def default_grid_h(self) -> int:
        """Rows of :attr:`default_grid`."""
        return self.default_grid[0]

    @property
    def default_grid_w(self) -> int:
        """Columns of :attr:`default_grid`."""
        return self.default_grid[1]

    def grid_of(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of patches of images ``(B, C, H, W)``."""
        return images.shape[-2] // self.patch_size_h, images.shape[-1] // self.patch_size_w

    def forward(self, images: Tensor, masking: Masking | None = None) -> MaskedEncoderOutput:
        """Encode what the masking leaves.

        Args:
            images: Shape ``(B, C, H, W)``.
            masking: Instead of the constructor's.
        """
        grid = self.grid_of(images)
        prefix, patches = self.embed(images)
        chosen = masking or (self.masking if self.training else None)
        if chosen is None:
            size, number = patches.shape[:2]
            ids_keep = torch.arange(number, device=patches.device).expand(size, -1)
            mask = patches.new_zeros(size, number)
            return MaskedEncoderOutput(self.run(prefix, patches), mask, ids_keep, grid)
        out = chosen(patches, *grid)
        return MaskedEncoderOutput(self.run(prefix, out.visible), out.mask, out.ids_keep, grid)

    def forward_kept(self, images: Tensor, ids_keep: Tensor) -> Tensor:
        """Encode the patches at given places alone.

        Args:
            images: Shape ``(B, C, H, W)``.
            ids_keep: Places, shape ``(B, n)``.

        Returns:
            Shape ``(B, prefix + n, D)``.
        """
        prefix, patches = self.embed(images)
        return self.run(prefix, keep_tokens(patches, ids_keep))

    def forward_masked(self, images: Tensor, mask: Tensor, mask_token: Tensor) -> Tensor:
        """Encode every place, with a token where patches are hidden.

        Args:
            images: Shape ``(B, C, H, W)``.
            mask: True (or 1) where hidden, shape ``(B, N)``.
            mask_token: Shape ``(1, 1, D)``; positions are added to it.

        Returns:
            Shape ``(B, prefix + N, D)``.
        """
        x = self.vit.patch_embed(images)
        hidden = mask.bool().reshape(*x.shape[:-1], 1)  # patches may come as rows or as a grid
        token = mask_token.to(x.dtype).reshape(*[1] * (x.ndim - 1), -1)
        prefix, patches = self._split(self.vit._pos_embed(torch.where(hidden, token, x)))
        return self.run(prefix, patches)

    def forward_features(self, images: Tensor) -> Tensor:
        """All tokens of whole images, shape ``(B, prefix + N, D)``; with gradient, in any mode."""
        return self.run(*self.embed(images))

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Prefix tokens ``(B, prefix, D)`` and patches ``(B, N, D)``, positions included."""
        return self._split(self.vit._pos_embed(self.vit.patch_embed(images)))

    def run(self, prefix: Tensor, patches: Tensor) -> Tensor:
        """Blocks and norm over prefix tokens and patches, shape ``(B, prefix + n, D)``."""
        x = self.vit.norm_pre(torch.cat([prefix, patches], dim=1))
        for block in self.vit.blocks:
            x = block(x)
        out: Tensor = self.vit.norm(x)
        return out

    def pool(self, tokens: Tensor) -> Tensor:
        """One vector per image, as the transformer pools: class token, or mean of the patches."""
        if self.vit.global_pool == "token" and self.num_prefix_tokens:
            return tokens[:, 0]
        pooled: Tensor = self.vit.fc_norm(tokens[:, self.num_prefix_tokens :].mean(1))
        return pooled

    def _split(self, x: Any) -> tuple[Tensor, Tensor]:
        return x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]


def _transformer(
    model: str | nn.Module, pretrained: bool, settings: dict[str, Any]
) -> VisionTransformer:
    if isinstance(model, str):
        built = from_timm(model, num_classes=0, pretrained=pretrained, **settings)
    elif settings or pretrained:
        raise ValueError(
            f"{sorted(settings) or ['pretrained']} are for models given by name; got the module "
            f"{type(model).__name__}, which has its own."
        )
    else:
        built = model
    if not isinstance(built, timm.models.VisionTransformer):
        raise TypeError(
            f"MaskedEncoder needs a VisionTransformer of timm, got {type(built).__name__}. Choose "
            "a model such as 'vit_small_patch16_224'."
        )
    return built
