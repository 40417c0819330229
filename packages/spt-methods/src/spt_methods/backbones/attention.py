"""Attention, with rotations, query-key norms and masks.

Vaswani et al., 2017, https://arxiv.org/abs/1706.03762; query-key norms of Dehghani et al.,
https://arxiv.org/abs/2302.05442.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from spt_methods.backbones.pos_embed import RotaryPositionEmbedding

Rope = Literal["1d", "2d", "3d"]


def rope_axes(use_rope: Rope | bool | None) -> int:
    """Axes of a rotation: ``True`` stands for ``"2d"``, ``None`` and ``False`` for none (0).

    Raises:
        ValueError: If it is unknown.
    """
    if use_rope is None or use_rope is False:
        return 0
    known = {True: 2, "1d": 1, "2d": 2, "3d": 3}
    if use_rope not in known:
        raise ValueError(f"`use_rope` must be '1d', '2d', '3d', True or None, got {use_rope!r}.")
    return known[use_rope]


class Attention(nn.Module):
    """Self-attention; its parameters are named as timm's.

    Args:
        dim: Width of the tokens, a multiple of ``num_heads``.
        num_heads: Heads.
        qkv_bias: Whether queries, keys and values have biases.
        attn_drop: Share of attention weights dropped.
        proj_drop: Share of outputs dropped.
        use_rope: Turn queries and keys by their positions on a grid.
        use_qk_norm: Normalise queries and keys (LayerNorm without parameters) before they are turned.

    Raises:
        ValueError: If ``dim`` does not divide.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        use_rope: Rope | bool | None = None,
        use_qk_norm: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        head_dim = _head_dim(dim, num_heads)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.q_norm, self.k_norm = _qk_norms(head_dim, use_qk_norm)
        axes = rope_axes(use_rope)
        self.rope = RotaryPositionEmbedding(head_dim, axes) if axes else None
        self.attn_drop = attn_drop
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(
        self,
        x: Tensor,
        attn_mask: Tensor | None = None,
        grid: Sequence[int] | None = None,
        indices: Tensor | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            x: Tokens, shape ``(B, N, dim)``.
            attn_mask: True where a query (row) may not look at a key, shape ``(N, N)`` or
                broadcastable to ``(B, heads, N, N)``.
            grid: Sides of the positions' grid; needed with rotations.
            indices: Places on the grid of the last tokens, shape ``(B, n)``.

        Raises:
            ValueError: If rotations lack their grid.
        """
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q), self.k_norm(k)
        if self.rope is not None:
            if grid is None:
                raise ValueError("Attention with rotations needs the `grid` of its tokens.")
            q, k = self.rope(q, grid, indices), self.rope(k, grid, indices)
        return self.proj_drop(self.proj(_attend(q, k, v, attn_mask, self._drop())))

    def _drop(self) -> float:
        return self.attn_drop if self.training else 0.0


class CrossAttention(nn.Module):
    """Attention of queries on a context.

    Args:
        dim: Width of the queries and of the result.
        context_dim: Width of the context; ``dim`` if ``None``.
        num_heads: Heads.
        qkv_bias: Whether queries, keys and values have biases.
        attn_drop: Share of attention weights dropped.
        proj_drop: Share of outputs dropped.
        use_qk_norm: Normalise queries and keys.
    """

    def __init__(
        self,
        dim: int,
        context_dim: int | None = None,
        num_heads: int = 8,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        use_qk_norm: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.kv = nn.Linear(context_dim or dim, 2 * dim, bias=qkv_bias)
        self.q_norm, self.k_norm = _qk_norms(_head_dim(dim, num_heads), use_qk_norm)
        self.attn_drop = attn_drop
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, context: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            x: Queries, shape ``(B, N, dim)``.
            context: Shape ``(B, M, context_dim)``.
            attn_mask: True where a query may not look, broadcastable to ``(B, heads, N, M)``.
        """
        q = self.q(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        k, v = self.kv(context).unflatten(2, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        drop = self.attn_drop if self.training else 0.0
        return self.proj_drop(
            self.proj(_attend(self.q_norm(q), self.k_norm(k), v, attn_mask, drop))
        )


def _attend(q: Tensor, k: Tensor, v: Tensor, blocked: Tensor | None, drop: float) -> Tensor:
    allowed = None if blocked is None else ~blocked.bool()
    out = F.scaled_dot_product_attention(q, k, v.to(q.dtype), attn_mask=allowed, dropout_p=drop)
    return out.transpose(1, 2).flatten(2)


def _head_dim(dim: int, num_heads: int) -> int:
    if num_heads < 1 or dim % num_heads:
        raise ValueError(f"`dim` must be a multiple of `num_heads`, got {dim} and {num_heads}.")
    return dim // num_heads


def _qk_norms(head_dim: int, use: bool) -> tuple[nn.Module, nn.Module]:
    if not use:
        return nn.Identity(), nn.Identity()
    return (
        nn.LayerNorm(head_dim, elementwise_affine=False),
        nn.LayerNorm(head_dim, elementwise_affine=False),
    )
