"""CrossMAE's decoder: queries at hidden places attend to the encoder's blocks, not to one another.

Fu et al., "Rethinking Patch Dependence for Masked Autoencoders", 2024, sections 3.2 and 3.4.
https://arxiv.org/abs/2401.14391; official code https://github.com/TonyLianLong/CrossMAE.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spt_methods.backbones.pos_embed import get_sincos_pos_embed
from spt_methods.backbones.transformer import TransformerBlock


class CrossDecoder(nn.Module):
    """Predict the patches at given places from the visible ones.

    Each block attends to a mixture of its own of the encoder's feature maps.

    Args:
        embed_dim: Width of the encoder's tokens.
        decoder_embed_dim: Width inside.
        output_dim: Values predicted per patch.
        grid_size: Rows and columns of the positions' grid.
        num_maps: Feature maps of the encoder that are mixed; ``None`` for a single one as it is.
        depth: Blocks.
        num_heads: Heads.
        mlp_ratio: Hidden width of the MLPs over ``decoder_embed_dim``.
        self_attn: Let queries also attend to one another.

    Attributes:
        mix: Weights of the maps for each block, shape ``(depth, num_maps)``, or ``None``.
    """

    pos_embed: Tensor

    def __init__(
        self,
        embed_dim: int,
        decoder_embed_dim: int,
        output_dim: int,
        grid_size: Sequence[int],
        num_maps: int | None = None,
        depth: int = 12,
        num_heads: int = 8,
        mlp_ratio: float = 4.0,
        self_attn: bool = False,
    ) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.empty(1, 1, decoder_embed_dim).normal_(std=0.02))
        rows, columns = grid_size
        table = get_sincos_pos_embed(decoder_embed_dim, rows * columns, "2d", (rows, columns))
        self.register_buffer("pos_embed", table, persistent=False)
        self.mix: nn.Parameter | None = None
        self.context_norms: nn.ModuleList | None = None
        if num_maps is not None:
            # what the official initialisation of linear layers leaves of its own
            self.mix = nn.Parameter(nn.init.xavier_uniform_(torch.empty(depth, num_maps)))
            norms = (nn.LayerNorm(embed_dim, eps=1e-6) for _ in range(depth))
            self.context_norms = nn.ModuleList(norms)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                decoder_embed_dim,
                num_heads,
                mlp_ratio,
                self_attn=self_attn,
                cross_attn=True,
                context_dim=embed_dim,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(decoder_embed_dim, eps=1e-6)
        self.pred = nn.Linear(decoder_embed_dim, output_dim)

    def forward(self, maps: Sequence[Tensor], places: Tensor) -> Tensor:
        """Predict.

        Args:
            maps: Feature maps ``(B, T, embed_dim)`` of the visible tokens, ``num_maps`` of them.
            places: Of the patches to predict, shape ``(B, m)``.

        Returns:
            Shape ``(B, m, output_dim)``.
        """
        x = self.mask_token + self.pos_embed.to(self.mask_token.dtype)[places]
        for block, context in zip(self.blocks, self.contexts(maps), strict=True):
            x = block(x, context)
        out: Tensor = self.pred(self.norm(x))
        return out

    def contexts(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """What each block attends to, ``(B, T, embed_dim)``."""
        if self.mix is None or self.context_norms is None:
            return [*maps] * len(self.blocks)
        mixed = torch.tensordot(self.mix, torch.stack([*maps]).to(self.mix.dtype), 1)
        return [norm(x) for norm, x in zip(self.context_norms, mixed, strict=True)]
