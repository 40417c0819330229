"""I-JEPA's predictor: mask tokens at the places of a block, a narrow transformer, features.

Assran et al., "Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture",
CVPR 2023, section 3. https://arxiv.org/abs/2301.08243; official code
https://github.com/facebookresearch/ijepa.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from spt_methods.backbones.transformer import TransformerBlock


class BlockPredictor(nn.Module):
    """Predict features at given places from the features of a context, each block on its own.

    Args:
        embed_dim: Width of the features.
        positions: Fixed positions of all places, shape ``(N, hidden_dim)``.
        depth: Blocks of the transformer.
        num_heads: Heads.
        mlp_ratio: Hidden width of the MLPs over ``hidden_dim``.
        out_dim: Width of the predicted features; ``embed_dim`` if ``None``.
        num_mask_tokens: Mask tokens to choose from, as V-JEPA has one for each kind of mask.
    """

    positions: Tensor

    def __init__(
        self,
        embed_dim: int,
        positions: Tensor,
        depth: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        out_dim: int | None = None,
        num_mask_tokens: int = 1,
    ) -> None:
        super().__init__()
        width = positions.shape[1]
        self.embed = nn.Linear(embed_dim, width)
        token = torch.empty(num_mask_tokens, 1, width)
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(token, std=0.02))
        self.register_buffer("positions", positions, persistent=False)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, num_heads, mlp_ratio) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.project = nn.Linear(width, out_dim or embed_dim)
        truncated_init(self)

    def forward(
        self, context: Tensor, context_idx: Tensor, target_idx: Tensor, which: int = 0
    ) -> Tensor:
        """Predict.

        Args:
            context: Features of the context, shape ``(B, n, embed_dim)``.
            context_idx: Their places, shape ``(B, n)``.
            target_idx: Places of each block, shape ``(T, B, m)``.
            which: Which mask token stands there.

        Returns:
            Shape ``(T * B, m, out_dim)``, block by block.
        """
        number = len(target_idx)
        known = self.embed(context) + self.positions[context_idx]
        asked = self.mask_token[which] + self.positions[target_idx.flatten(0, 1)]
        x = torch.cat([known.repeat(number, 1, 1), asked], dim=1)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.project(self.norm(x[:, known.shape[1] :]))
        return out


@torch.no_grad()
def truncated_init(module: nn.Module) -> None:
    """Linear layers and tokens from a normal of deviation 0.02, cut; later blocks start smaller.

    The last linear layer of each attention and MLP of block ``i`` is divided by ``sqrt(2 (i + 1))``,
    as the official code does. Changed in place; not for pretrained weights.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    vit: Any = getattr(module, "vit", module)
    blocks: Iterable[Any] = vit.blocks
    for index, block in enumerate(blocks):
        for last in (block.attn.proj, block.mlp.fc2):
            last.weight.div_(math.sqrt(2.0 * (index + 1)))
