"""The tokens of a timm vision transformer, of all its patches or of some."""

from __future__ import annotations

from typing import Any, NamedTuple

import timm
import torch
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from spt_methods.backbones.timm import from_timm
from spt_methods.masking.patches import keep_tokens

Grid = tuple[int, int]


class Tokens(NamedTuple):
    """What an encoder returns on request.

    Attributes:
        embedding: One vector per image, pooled as the encoder pools, shape ``(B, F)``.
        prefix: Class and register tokens, shape ``(B, prefix, D)``; the class token comes first.
        patches: Shape ``(B, n, D)``.
        grid_size: Rows and columns of the whole grid.
    """

    embedding: Tensor
    prefix: Tensor
    patches: Tensor
    grid_size: Grid


class ViTTokens(nn.Module):
    """Runs a timm ViT on whole images, on the patches that are kept, or with mask tokens.

    The transformer's own modules are used in timm's order (patch embedding, positions, prefix
    tokens, pre-norm, blocks, norm, pooling), so on whole images the result is timm's. Rotary
    positions (timm's ``Eva``, among them DINOv3) follow the patches that are kept; relative position
    biases (timm's ``Beit``) are for whole grids.

    Args:
        model_or_model_name: A timm ``VisionTransformer``, ``Eva`` or ``Beit``, or the name of one.
        mask_token: Add a learned mask token, for ``mask`` in :meth:`forward`.
        pretrained: Load timm's weights.
        **settings: For making a named model: ``img_size``, ``patch_size``, ``in_chans``,
            ``dynamic_img_size``, ``drop_path_rate`` and others; ``None`` leaves timm's.

    Attributes:
        vit: The transformer.
        embed_dim: Width of the tokens.
        num_features: Width of the embedding.
        num_prefix_tokens: Class and register tokens.
        mask_token: Shape ``(1, 1, D)``, or ``None``.
        rope: Rotations instead of the transformer's own, from a grid to ``(N, 2 head_dim)``, such as
            :class:`spt_methods.backbones.rope.DINOv3Rope`; ``None`` leaves the transformer's.

    Raises:
        TypeError: If the model is no such transformer.
        ValueError: If a given model comes with settings for making one.

    Example:
        >>> encoder = ViTTokens("vit_tiny_patch16_224", img_size=32)
        >>> embedding, prefix, patches, grid = encoder(torch.zeros(2, 3, 32, 32))
        >>> embedding.shape, prefix.shape, patches.shape, grid
        (torch.Size([2, 192]), torch.Size([2, 1, 192]), torch.Size([2, 4, 192]), (2, 2))
    """

    def __init__(
        self,
        model_or_model_name: str | nn.Module = "vit_base_patch16_224",
        *,
        mask_token: bool = False,
        pretrained: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__()
        given = {name: value for name, value in settings.items() if value is not None}
        self.vit: Any = _transformer(model_or_model_name, pretrained, given)
        self.embed_dim = int(self.vit.embed_dim)
        self.num_features = int(self.vit.num_features)
        self.num_prefix_tokens = int(self.vit.num_prefix_tokens)
        self.rope: nn.Module | None = None
        self.mask_token: nn.Parameter | None = None
        if mask_token:
            self.mask_token = nn.Parameter(torch.empty(1, 1, self.embed_dim))
            nn.init.trunc_normal_(self.mask_token, std=0.02)

    @property
    def patch_size(self) -> Grid:
        """Height and width of a patch."""
        height, width = self.vit.patch_embed.feat_ratio(as_scalar=False)  # a hybrid's stem counts
        return int(height), int(width)

    @property
    def square_patch(self) -> int:
        """Side of a patch.

        Raises:
            ValueError: If patches are not square.
        """
        height, width = self.patch_size
        if height != width:
            raise ValueError(f"Patches must be square, got {height} x {width} pixels.")
        return height

    @property
    def in_chans(self) -> int:
        """Channels of the images."""
        parts = self.vit.patch_embed.modules()  # a hybrid's stem comes before its projection
        return next(part.in_channels for part in parts if isinstance(part, nn.Conv2d))

    @property
    def default_grid(self) -> Grid:
        """Rows and columns of the grid at the transformer's own image size."""
        rows, columns = self.vit.patch_embed.grid_size
        return int(rows), int(columns)

    def grid_of(self, images: Tensor) -> Grid:
        """Rows and columns of patches of images ``(B, C, H, W)``."""
        height, width = self.patch_size
        return images.shape[-2] // height, images.shape[-1] // width

    def forward(
        self,
        images: Tensor,
        mask: Tensor | None = None,
        ids_keep: Tensor | None = None,
        mask_token: Tensor | None = None,
    ) -> Tokens:
        """Encode images.

        Args:
            images: Shape ``(B, C, H, W)``.
            mask: Where True (or 1), the mask token stands in a patch's place, shape ``(B, N)``.
            ids_keep: The places of the patches to encode, alone, shape ``(B, n)``.
            mask_token: Instead of the encoder's own, shape ``(1, 1, D)``.

        Raises:
            ValueError: If there is a mask and no mask token, or patches are to be left out of a
                transformer with relative position biases.
        """
        tokens = self.tokens(images, mask, ids_keep, mask_token)
        prefix, patches = self._split(tokens)
        return Tokens(self.pool(tokens), prefix, patches, self.grid_of(images))

    def tokens(
        self,
        images: Tensor,
        mask: Tensor | None = None,
        ids_keep: Tensor | None = None,
        mask_token: Tensor | None = None,
    ) -> Tensor:
        """All tokens after the norm, prefix first, ``(B, prefix + n, D)``; see :meth:`forward`."""
        x, rope = self._kept(*self._embed(images, mask, mask_token), ids_keep)
        return self.norm(self.blocks_of(x, rope)[-1])

    def forward_features(self, images: Tensor) -> Tensor:
        """All tokens of whole images, shape ``(B, prefix + N, D)``; with gradient, in any mode."""
        return self.tokens(images)

    def block_outputs(
        self,
        images: Tensor,
        mask: Tensor | None = None,
        ids_keep: Tensor | None = None,
        *,
        with_input: bool = False,
    ) -> list[Tensor]:
        """The tokens after each block, before the norm, each ``(B, prefix + n, D)``; see :meth:`forward`.

        Args:
            images: Shape ``(B, C, H, W)``.
            mask: Where the mask token stands.
            ids_keep: The places of the patches to encode.
            with_input: Begin with the tokens that enter the first block.
        """
        x, rope = self._kept(*self._embed(images, mask, None), ids_keep)
        outputs = self.blocks_of(x, rope)
        return [x, *outputs] if with_input else outputs

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Prefix tokens ``(B, prefix, D)`` and patches ``(B, N, D)``, positions included."""
        return self._split(self._embed(images, None, None)[0])

    def run(self, prefix: Tensor, patches: Tensor) -> Tensor:
        """Blocks and norm over prefix tokens and patches, shape ``(B, prefix + n, D)``."""
        return self.norm(self.blocks_of(torch.cat([prefix, patches], dim=1), None)[-1])

    def blocks_of(
        self, x: Tensor, rope: Tensor | None = None, blocked: Tensor | None = None
    ) -> list[Tensor]:
        """Pre-norm and blocks over all tokens; what each block returns.

        Args:
            x: Tokens, prefix first, shape ``(B, T, D)``.
            rope: Rotations of the patches.
            blocked: True where a token (row) may not look, broadcastable to ``(B, heads, T, T)``; made
                by :func:`spt_methods.backbones.blocked_future`.

        Raises:
            ValueError: If the transformer's blocks take no such mask.
        """
        if isinstance(self.vit, Beit):
            if blocked is not None:
                raise ValueError(
                    f"The blocks of {type(self.vit).__name__} see everything: choose a "
                    "VisionTransformer or an Eva to hide some tokens from others."
                )
        else:
            x = self.vit.norm_pre(x)
        # added to the scores: the one form that all of timm's attentions take
        bias = None if blocked is None else x.new_zeros(()).masked_fill(blocked, -torch.inf)
        given = {} if bias is None else {"attn_mask": bias}
        outputs = []
        for index, block in enumerate(self.vit.blocks):
            x = block(x, **self._positions_in(index, rope), **given)
            outputs.append(x)
        return outputs

    def _positions_in(self, index: int, rope: Tensor | None) -> dict[str, Tensor]:
        """What a block is told of positions."""
        if isinstance(self.vit, Beit):
            shared = self.vit.rel_pos_bias
            return {} if shared is None else {"shared_rel_pos_bias": shared()}
        if rope is None:
            return {}
        mixed = getattr(self.vit, "rope_mixed", False)  # rotations that differ per block
        return {"rope": rope[index] if mixed else rope}

    def norm(self, x: Tensor) -> Tensor:
        """The transformer's last norm over tokens."""
        out: Tensor = self.vit.norm(x)
        return out

    def pool(self, tokens: Tensor) -> Tensor:
        """One vector per image, as the transformer pools, shape ``(B, F)``."""
        out: Tensor = self.vit.forward_head(tokens, pre_logits=True)
        return out

    def _embed(
        self, images: Tensor, mask: Tensor | None, mask_token: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        x = self.vit.patch_embed(images)
        if mask is not None:
            token = self.mask_token if mask_token is None else mask_token
            if token is None:
                raise ValueError(
                    f"{type(self).__name__} has no mask token: make it with `mask_token=True`, or "
                    "give `mask_token`."
                )
            hidden = mask.bool().reshape(*x.shape[:-1], 1)  # patches come as rows or as a grid
            x = torch.where(hidden, token.to(x.dtype).reshape(*[1] * (x.ndim - 1), -1), x)
        if isinstance(self.vit, Beit):
            return _placed_in_beit(self.vit, x), None
        placed = self.vit._pos_embed(x)
        x, rope = placed if isinstance(placed, tuple) else (placed, None)
        return x, rope if self.rope is None else self.rope(self.grid_of(images))

    def _kept(
        self, x: Tensor, rope: Tensor | None, ids_keep: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Prefix tokens and the kept patches alone, with their rotations."""
        if ids_keep is None:
            return x, rope
        if isinstance(self.vit, Beit):
            raise ValueError(
                f"{type(self.vit).__name__} has relative position biases, which are for whole grids: "
                "choose a VisionTransformer or an Eva to encode some patches alone."
            )
        prefix, patches = self._split(x)
        x = torch.cat([prefix, keep_tokens(patches, ids_keep)], dim=1)
        return x, None if rope is None else _rope_at(rope, ids_keep)

    def _split(self, x: Any) -> tuple[Tensor, Tensor]:
        return x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]


def _placed_in_beit(vit: Any, x: Tensor) -> Tensor:
    """The class token, the patches and, where there are any, absolute positions."""
    x = torch.cat([vit.cls_token.expand(len(x), -1, -1), x], dim=1)
    out: Tensor = vit.pos_drop(x if vit.pos_embed is None else x + vit.pos_embed)
    return out


def _rope_at(rope: Tensor, ids_keep: Tensor) -> Tensor:
    """Rotations of the kept patches: ``(B, 1, n, d)``, with a leading axis of blocks if mixed."""
    if rope.ndim == 2:  # (N, d), the same for every head and block
        return rope[ids_keep].unsqueeze(1)
    at = rope[..., ids_keep, :]  # (blocks, heads, B, n, d)
    return at.transpose(-4, -3)


def _transformer(
    model: str | nn.Module, pretrained: bool, settings: dict[str, Any]
) -> VisionTransformer | Eva | Beit:
    if isinstance(model, str):
        built = from_timm(model, pretrained=pretrained, **settings)
    elif settings or pretrained:
        raise ValueError(
            f"{sorted(settings) or ['pretrained']} are for models given by name; got the module "
            f"{type(model).__name__}, which has its own."
        )
    else:
        built = model
    if not isinstance(built, (timm.models.VisionTransformer, Eva, Beit)):
        raise TypeError(
            f"ViTTokens needs a VisionTransformer (or Eva, Beit) of timm, got {type(built).__name__}. "
            "Choose a model such as 'vit_small_patch16_224'."
        )
    return built
