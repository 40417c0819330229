"""MAE's decoder: mask tokens among the encoded patches, a narrow transformer, and pixels.

He et al., "Masked Autoencoders", CVPR 2022, section 3, https://arxiv.org/abs/2111.06377; official
code https://github.com/facebookresearch/mae.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from spt_methods.backbones.pos_embed import get_sincos_pos_embed
from spt_methods.backbones.transformer import TransformerBlock


class MAEDecoder(nn.Module):
    """Predict every patch from the visible ones.

    Args:
        embed_dim: Width of the encoder's tokens.
        decoder_embed_dim: Width inside.
        output_dim: Values predicted per patch.
        num_patches: Patches of the grid.
        depth: Blocks.
        num_heads: Heads.
        mlp_ratio: Hidden width of the MLPs over ``decoder_embed_dim``.
        pos_embed_type: ``"sincos_2d"``, ``"sincos_1d"`` or ``"learned"``.
        grid_size: Sides of the grid; square if left out.
        drop_path_rate: Stochastic depth of the last block; it grows linearly.
        num_prefix_tokens: Leading tokens that are not patches; they take part and are left out of the
            result.

    Raises:
        ValueError: If ``pos_embed_type`` is unknown.
    """

    def __init__(
        self,
        embed_dim: int = 768,
        decoder_embed_dim: int = 512,
        output_dim: int = 768,
        num_patches: int = 196,
        depth: int = 4,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        pos_embed_type: Literal["sincos_1d", "sincos_2d", "learned"] = "sincos_2d",
        grid_size: int | Sequence[int] | None = None,
        drop_path_rate: float = 0.0,
        num_prefix_tokens: int = 0,
    ) -> None:
        super().__init__()
        self.num_prefix_tokens = num_prefix_tokens
        self.decoder_embed = nn.Linear(embed_dim, decoder_embed_dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, decoder_embed_dim).normal_(std=0.02))
        if pos_embed_type == "learned":
            table = nn.init.trunc_normal_(torch.empty(1, num_patches, decoder_embed_dim), std=0.02)
            self.pos_embed: Tensor = nn.Parameter(table)
        elif pos_embed_type in ("sincos_1d", "sincos_2d"):
            mode: Any = pos_embed_type.removeprefix("sincos_")
            table = get_sincos_pos_embed(decoder_embed_dim, num_patches, mode, grid_size)
            self.register_buffer("pos_embed", table.unsqueeze(0), persistent=False)
        else:
            raise ValueError(
                "`pos_embed_type` must be 'sincos_1d', 'sincos_2d' or 'learned', got "
                f"{pos_embed_type!r}."
            )
        rates = torch.linspace(0, drop_path_rate, depth).tolist()
        self.blocks = nn.ModuleList(
            TransformerBlock(decoder_embed_dim, num_heads, mlp_ratio, drop_path=rate)
            for rate in rates
        )
        self.norm = nn.LayerNorm(decoder_embed_dim, eps=1e-6)
        self.pred = nn.Linear(decoder_embed_dim, output_dim)

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        ids_keep: Tensor | None = None,
        output_masked_only: bool = False,
    ) -> Tensor:
        """Predict.

        Args:
            x: Prefix tokens, then visible patches ``(B, prefix + n, embed_dim)``, or every place
                ``(B, prefix + N, embed_dim)``, of which the masked ones are replaced.
            mask: 1 where hidden, shape ``(B, N)``.
            ids_keep: Places of the visible patches, shape ``(B, n)``; read off the mask if left out.
            output_masked_only: Return the hidden patches alone, which must be equally many in each
                image.

        Returns:
            Shape ``(B, N, output_dim)``, or ``(B, hidden, output_dim)`` in the order of their places.

        Raises:
            ValueError: If the number of tokens fits neither the visible patches nor all.
        """
        size, number = mask.shape
        x = self.decoder_embed(x)
        prefix, patches = x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]
        if patches.shape[1] == number:
            full = torch.where(mask.bool().unsqueeze(2), self.mask_token.to(x.dtype), patches)
        else:
            kept = _kept_places(mask, patches.shape[1]) if ids_keep is None else ids_keep
            if kept.shape[1] != patches.shape[1]:
                raise ValueError(
                    f"`x` holds {patches.shape[1]} patches; `ids_keep` names {kept.shape[1]} of "
                    f"{number}."
                )
            full = self.mask_token.to(x.dtype).repeat(size, number, 1)
            full = full.scatter(1, kept.unsqueeze(2).expand_as(patches), patches)
        x = torch.cat([prefix, full + self.pos_embed.to(x.dtype)], dim=1)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.pred(self.norm(x))[:, self.num_prefix_tokens :]
        if output_masked_only:
            hidden = number - (patches.shape[1] if ids_keep is None else ids_keep.shape[1])
            places = mask.argsort(dim=1, descending=True, stable=True)[:, :hidden]
            return out.gather(1, places.unsqueeze(2).expand(-1, -1, out.shape[2]))
        return out


def _kept_places(mask: Tensor, visible: int) -> Tensor:
    return mask.argsort(dim=1, stable=True)[:, :visible]
