"""A transformer over a context and queries: decoder, predictor, denoiser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from spt_methods.backbones.attention import Rope
from spt_methods.backbones.pos_embed import get_sincos_pos_embed, get_timestep_embed
from spt_methods.backbones.transformer import MlpType, TransformerBlock, modulate

PosEmbed = Literal["sincos_1d", "sincos_2d", "sincos_3d", "learned", "none"]


class FlexibleTransformer(nn.Module):
    """Tokens of a context, and queries that are answered from it.

    Without cross-attention, all tokens attend to each other; with it, the queries attend to the
    context (and to each other, with ``self_attn``). Positions are gathered by index, so that the
    context may be any subset of the patches.

    Args:
        input_dim: Width of the tokens that come in.
        hidden_dim: Width inside.
        output_dim: Width of the answer.
        num_patches: Positions of the grid.
        depth: Blocks.
        num_heads: Heads.
        mlp_ratio: Hidden width of the MLPs over ``hidden_dim``.
        self_attn: Self-attention in the blocks.
        cross_attn: Cross-attention in the blocks.
        use_adaln: Modulate by the time ``t``.
        pos_embed_type: ``"sincos_1d"``, ``"sincos_2d"``, ``"sincos_3d"``, ``"learned"`` or ``"none"``.
        grid_size: Sides of the grid; square if left out.
        drop_path_rate: Stochastic depth of the last block; it grows linearly.
        attn_drop: Share of attention weights dropped.
        proj_drop: Share of outputs dropped.
        zero_init_output: Start with an answer of zero.
        num_prefix_tokens: Leading context tokens without a position (class token, registers of the
            encoder).
        num_registers: Learned tokens of the transformer's own.
        add_mask_token: Have a token that stands for what is masked.
        use_rope: Turn queries and keys by their positions; joint attention only.
        use_qk_norm: Normalise queries and keys.
        mlp_type: ``"gelu"`` or ``"swiglu"``.
        use_layer_scale: Scale residuals by learned vectors.
        layer_scale_init: Their first value.

    Raises:
        ValueError: If settings contradict each other.
    """

    def __init__(
        self,
        input_dim: int = 768,
        hidden_dim: int = 384,
        output_dim: int = 768,
        num_patches: int = 196,
        depth: int = 4,
        num_heads: int = 6,
        mlp_ratio: float = 4.0,
        self_attn: bool = True,
        cross_attn: bool = True,
        use_adaln: bool = True,
        pos_embed_type: PosEmbed = "sincos_2d",
        grid_size: int | Sequence[int] | None = None,
        drop_path_rate: float = 0.0,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        zero_init_output: bool = True,
        num_prefix_tokens: int = 1,
        num_registers: int = 0,
        add_mask_token: bool = False,
        use_rope: Rope | bool | None = None,
        use_qk_norm: bool = False,
        mlp_type: MlpType = "gelu",
        use_layer_scale: bool = False,
        layer_scale_init: float = 1e-5,
    ) -> None:
        super().__init__()
        if use_rope and cross_attn:
            raise ValueError("`use_rope` needs joint attention: pass `cross_attn=False`.")
        self.cross_attn, self.use_rope = cross_attn, bool(use_rope)
        self.num_patches, self.num_prefix_tokens = num_patches, num_prefix_tokens
        self.grid = _sides(grid_size, num_patches, use_rope)
        self.context_proj = nn.Linear(input_dim, hidden_dim)
        self.query_proj = nn.Linear(input_dim, hidden_dim)
        table = _positions(pos_embed_type, hidden_dim, num_patches, grid_size)
        if pos_embed_type == "learned":
            self.pos_embed: Tensor = nn.Parameter(table)
        else:
            self.register_buffer("pos_embed", table, persistent=False)
        self.registers = _tokens(num_registers, hidden_dim)
        self.prefix_pos = _tokens(num_prefix_tokens, hidden_dim)
        self.mask_token = _tokens(1, hidden_dim) if add_mask_token else None
        rates = torch.linspace(0, drop_path_rate, depth).tolist()
        shared: dict[str, Any] = {
            "mlp_ratio": mlp_ratio,
            "self_attn": self_attn or not cross_attn,
            "cross_attn": cross_attn,
            "use_adaln": use_adaln,
            "attn_drop": attn_drop,
            "proj_drop": proj_drop,
            "use_rope": use_rope,
            "use_qk_norm": use_qk_norm,
            "mlp_type": mlp_type,
            "use_layer_scale": use_layer_scale,
            "layer_scale_init": layer_scale_init,
        }
        self.blocks = nn.ModuleList(
            TransformerBlock(hidden_dim, num_heads, drop_path=rate, **shared) for rate in rates
        )
        self.time = TimeEmbedding(hidden_dim) if use_adaln else None
        self.final_modulation = nn.Linear(hidden_dim, 2 * hidden_dim) if use_adaln else None
        self.norm = nn.LayerNorm(hidden_dim, eps=1e-6)
        self.output_proj = nn.Linear(hidden_dim, output_dim)
        if zero_init_output:
            nn.init.zeros_(self.output_proj.weight)
            nn.init.zeros_(self.output_proj.bias)

    def forward(
        self,
        context: Tensor,
        queries: Tensor | None = None,
        context_idx: Tensor | None = None,
        query_idx: Tensor | None = None,
        t: Tensor | None = None,
        num_prefix: int | None = None,
        return_all: bool = False,
        return_registers: bool = False,
        context_mask: Tensor | None = None,
        query_mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Answer the queries from the context.

        Args:
            context: Tokens, shape ``(B, prefix + n, input_dim)``.
            queries: Tokens, shape ``(B, m, input_dim)``; mask tokens at ``query_idx`` if ``None``.
            context_idx: Positions of the context's patches, shape ``(B, n)``; in order if ``None``.
            query_idx: Positions of the queries, shape ``(B, m)``; in order if ``None``.
            t: Times, shape ``(B,)``; needed with AdaLN.
            num_prefix: Leading context tokens without a position; as constructed if ``None``.
            return_all: Return every patch at its position, ``(B, num_patches, output_dim)``; joint
                attention only. Positions that no token holds are zero.
            return_registers: Also return the registers, ``(B, registers, output_dim)``; joint only.
            context_mask: True where a context patch becomes the mask token, shape ``(B, n)``.
            query_mask: True where a query becomes the mask token, shape ``(B, m)``.
            attn_mask: True where context and queries (in this order) may not look at each other,
                ``(prefix + n + m)`` squared; registers are free.

        Returns:
            Shape ``(B, m, output_dim)``, or as asked for.

        Raises:
            ValueError: If something needed is missing, or cannot be combined.
        """
        self._check(queries, query_idx, t, return_all or return_registers, context_mask, query_mask)
        prefix = self.num_prefix_tokens if num_prefix is None else num_prefix
        size = len(context)
        context_idx = _indices(context_idx, size, context.shape[1] - prefix, context.device)
        number = query_idx.shape[1] if queries is None and query_idx is not None else 0
        number = queries.shape[1] if queries is not None else number
        query_idx = _indices(query_idx, size, number, context.device)
        tokens = self._context_tokens(context, context_idx, context_mask, prefix)
        asked = self._query_tokens(queries, query_idx, query_mask)
        condition = None if self.time is None or t is None else self.time(t)
        if self.cross_attn:
            memory = torch.cat([self.registers.expand(size, -1, -1), tokens], dim=1)
            for block in self.blocks:
                asked = block(asked, memory, condition)
            return self._answer(asked, condition)
        x = torch.cat([self.registers.expand(size, -1, -1), tokens, asked], dim=1)
        places = torch.cat([context_idx, query_idx], dim=1)
        blocked = _with_free_registers(attn_mask, self.registers.shape[1])
        for block in self.blocks:
            x = self._joint(block, x, condition, blocked, places, prefix)
        return self._joint_answer(
            self._answer(x, condition), places, number, prefix, return_all, return_registers
        )

    def _joint(
        self,
        block: nn.Module,
        x: Tensor,
        condition: Tensor | None,
        blocked: Tensor | None,
        places: Tensor,
        prefix: int,
    ) -> Tensor:
        grid = self.grid if self.use_rope else None
        out: Tensor = block(x, None, condition, blocked, grid, places if self.use_rope else None)
        return out

    def _joint_answer(
        self,
        x: Tensor,
        places: Tensor,
        number: int,
        prefix: int,
        return_all: bool,
        return_registers: bool,
    ) -> Tensor | tuple[Tensor, Tensor]:
        registers = self.registers.shape[1]
        if return_all:
            patches = x[:, registers + prefix :]
            out = patches.new_zeros(len(x), self.num_patches, x.shape[2])
            answer = out.scatter(1, places.unsqueeze(2).expand(-1, -1, x.shape[2]), patches)
        else:
            answer = x[:, x.shape[1] - number :]
        return (answer, x[:, :registers]) if return_registers else answer

    def _context_tokens(
        self, context: Tensor, indices: Tensor, mask: Tensor | None, prefix: int
    ) -> Tensor:
        x = self.context_proj(context)
        head, patches = x[:, :prefix], x[:, prefix:]
        patches = self._masked(patches, mask) + self._positions_at(indices)
        return torch.cat([head + self.prefix_pos[:, :prefix], patches], dim=1)

    def _query_tokens(self, queries: Tensor | None, indices: Tensor, mask: Tensor | None) -> Tensor:
        if queries is None:
            if self.mask_token is None:
                return self._positions_at(indices)[:, :0]
            x = self.mask_token.expand(*indices.shape, -1)
        else:
            x = self._masked(self.query_proj(queries), mask)
        return x + self._positions_at(indices)

    def _masked(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None or self.mask_token is None:
            return x
        return torch.where(mask.bool().unsqueeze(2), self.mask_token.to(x.dtype), x)

    def _positions_at(self, indices: Tensor) -> Tensor:
        return self.pos_embed[indices]

    def _answer(self, x: Tensor, condition: Tensor | None) -> Tensor:
        x = self.norm(x)
        if self.final_modulation is not None and condition is not None:
            x = modulate(x, *self.final_modulation(condition).chunk(2, dim=1))
        out: Tensor = self.output_proj(x)
        return out

    def _check(
        self,
        queries: Tensor | None,
        query_idx: Tensor | None,
        t: Tensor | None,
        joint_only: bool,
        *masks: Tensor | None,
    ) -> None:
        if self.time is not None and t is None:
            raise ValueError("A transformer with AdaLN needs the times `t`.")
        if self.mask_token is None and any(mask is not None for mask in masks):
            raise ValueError("Masks need a mask token: construct with `add_mask_token=True`.")
        if queries is None and query_idx is not None and self.mask_token is None:
            raise ValueError("Queries by index alone need a mask token: `add_mask_token=True`.")
        if self.cross_attn and queries is None and query_idx is None:
            raise ValueError("Cross-attention needs `queries`, or `query_idx` with a mask token.")
        if self.cross_attn and joint_only:
            raise ValueError("`return_all` and `return_registers` need `cross_attn=False`.")


def _indices(given: Tensor | None, size: int, number: int, device: torch.device) -> Tensor:
    if given is None:
        return torch.arange(number, device=device).expand(size, -1)
    return given


def _with_free_registers(blocked: Tensor | None, registers: int) -> Tensor | None:
    if blocked is None or not registers:
        return blocked
    return nn.functional.pad(blocked.bool(), (registers, 0, registers, 0), value=False)


def _tokens(number: int, dim: int) -> nn.Parameter:
    tokens = nn.Parameter(torch.zeros(1, number, dim))
    nn.init.trunc_normal_(tokens, std=0.02)
    return tokens


class TimeEmbedding(nn.Module):
    """A condition from times, as in https://arxiv.org/abs/2212.09748.

    Args:
        dim: Width of the condition.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        """Shape ``(B, dim)`` from times ``(B,)``."""
        waves = get_timestep_embed(t, 256).to(self.mlp[0].weight.dtype)  # type: ignore[arg-type]
        out: Tensor = self.mlp(waves)
        return out


def _positions(
    kind: PosEmbed, dim: int, number: int, grid_size: int | Sequence[int] | None
) -> Tensor:
    known = ("sincos_1d", "sincos_2d", "sincos_3d", "learned", "none")
    if kind not in known:
        raise ValueError(f"`pos_embed_type` must be one of {list(known)}, got {kind!r}.")
    if kind == "learned":
        return nn.init.trunc_normal_(torch.empty(number, dim), std=0.02)
    if kind == "none":
        return torch.zeros(number, dim)
    mode: Any = kind.removeprefix("sincos_")
    return get_sincos_pos_embed(dim, number, mode, grid_size)


def _sides(
    grid_size: int | Sequence[int] | None, number: int, use_rope: Rope | bool | None
) -> tuple[int, ...]:
    if isinstance(grid_size, int):
        return (grid_size, grid_size)
    if grid_size is not None:
        return tuple(grid_size)
    if use_rope == "1d":
        return (number,)
    side = math.isqrt(number)
    return (side, side)
