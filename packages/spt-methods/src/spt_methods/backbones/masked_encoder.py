"""A timm vision transformer that sees a part of its patches."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from spt_methods.backbones.vit_tokens import Grid, ViTTokens
from spt_methods.masking.patches import MaskingOutput

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
    grid_size: Grid


class MaskedEncoder(ViTTokens):
    """A :class:`ViTTokens` with a masking: in training only the patches that it leaves are encoded.

    Args:
        model_or_model_name: A timm ``VisionTransformer`` or ``Eva``, or the name of one.
        masking: A module of :mod:`spt_methods.masking`; only used in training mode.
        pretrained: Load timm's weights.
        img_size: Side, or height and width, of the images.
        patch_size: Side of the patches.
        dynamic_img_size: Accept images of other sizes.
        norm_layer: Class of the norms.

    Raises:
        TypeError: If the model is no such transformer.
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
        super().__init__(
            model_or_model_name,
            pretrained=pretrained,
            img_size=img_size,
            patch_size=patch_size,
            dynamic_img_size=dynamic_img_size or None,
            norm_layer=norm_layer,
        )
        self.masking = masking

    @property
    def patch_size_h(self) -> int:
        """Height of a patch."""
        return self.patch_size[0]

    @property
    def patch_size_w(self) -> int:
        """Width of a patch."""
        return self.patch_size[1]

    @property
    def default_grid_h(self) -> int:
        """Rows of :attr:`default_grid`."""
        return self.default_grid[0]

    @property
    def default_grid_w(self) -> int:
        """Columns of :attr:`default_grid`."""
        return self.default_grid[1]

    def forward(  # type: ignore[override]
        self, images: Tensor, masking: Masking | None = None
    ) -> MaskedEncoderOutput:
        """Encode what the masking leaves.

        Args:
            images: Shape ``(B, C, H, W)``.
            masking: Instead of the constructor's.
        """
        grid = self.grid_of(images)
        chosen = masking or (self.masking if self.training else None)
        size, number = len(images), grid[0] * grid[1]
        if chosen is None:
            ids_keep = torch.arange(number, device=images.device).expand(size, -1)
            tokens = self.tokens(images)
            return MaskedEncoderOutput(tokens, tokens.new_zeros(size, number), ids_keep, grid)
        places = images.new_empty(size, number, 0)  # a masking looks at the shape alone
        out = chosen(places, *grid)
        tokens = self.tokens(images, ids_keep=out.ids_keep)
        return MaskedEncoderOutput(tokens, out.mask, out.ids_keep, grid)

    def forward_kept(self, images: Tensor, ids_keep: Tensor) -> Tensor:
        """All tokens of the patches at ``ids_keep`` ``(B, n)`` alone, ``(B, prefix + n, D)``."""
        return self.tokens(images, ids_keep=ids_keep)

    def forward_masked(self, images: Tensor, mask: Tensor, mask_token: Tensor) -> Tensor:
        """All tokens, ``mask_token`` ``(1, 1, D)`` standing where ``mask`` ``(B, N)`` is True."""
        return self.tokens(images, mask, mask_token=mask_token)
