"""A pre-norm transformer block: attention on itself, on a context, or both; with AdaLN-zero if asked.

Dosovitskiy et al., https://arxiv.org/abs/2010.11929; AdaLN-zero of Peebles and Xie,
https://arxiv.org/abs/2212.09748; SwiGLU of Shazeer, https://arxiv.org/abs/2002.05202.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from timm.layers.drop import DropPath
from timm.layers.layer_scale import LayerScale
from timm.layers.mlp import Mlp, SwiGLU
from torch import Tensor, nn

from spt_methods.backbones.attention import Attention, CrossAttention, Rope

MlpType = Literal["gelu", "swiglu"]


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """``x (1 + scale) + shift``, one shift and scale per sample.

    Args:
        x: Tokens, shape ``(B, N, D)``.
        shift: Shape ``(B, D)``.
        scale: Shape ``(B, D)``.
    """
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention and MLP, each behind a norm and around a residual.

    Args:
        dim: Width of the tokens.
        num_heads: Heads.
        mlp_ratio: Hidden width of the MLP over ``dim``; a SwiGLU takes two thirds of it.
        self_attn: Attend to the tokens themselves.
        cross_attn: Attend to a context, after the self-attention.
        use_adaln: Modulate each part by a condition, starting as the identity (AdaLN-zero).
        context_dim: Width of the context; ``dim`` if ``None``.
        drop_path: Stochastic depth.
        attn_drop: Share of attention weights dropped.
        proj_drop: Share of outputs dropped.
        use_rope: Turn queries and keys of the self-attention by their positions.
        use_qk_norm: Normalise queries and keys.
        mlp_type: ``"gelu"`` or ``"swiglu"``.
        use_layer_scale: Scale each residual by a learned vector (https://arxiv.org/abs/2103.17239).
        layer_scale_init: Its first value.
        act_layer: Activation of the plain MLP.
        norm_eps: Epsilon of the norms.

    Raises:
        ValueError: If there is no attention at all, or ``mlp_type`` is unknown.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        self_attn: bool = True,
        cross_attn: bool = False,
        use_adaln: bool = False,
        context_dim: int | None = None,
        drop_path: float = 0.0,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        use_rope: Rope | bool | None = None,
        use_qk_norm: bool = False,
        mlp_type: MlpType = "gelu",
        use_layer_scale: bool = False,
        layer_scale_init: float = 1e-5,
        act_layer: type[nn.Module] = nn.GELU,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        if not (self_attn or cross_attn):
            raise ValueError("A block needs `self_attn` or `cross_attn`, or both.")
        drops = {"attn_drop": attn_drop, "proj_drop": proj_drop, "use_qk_norm": use_qk_norm}
        parts: dict[str, nn.Module] = {}
        if self_attn:
            parts["attn"] = Attention(dim, num_heads, use_rope=use_rope, **drops)  # type: ignore[arg-type]
        if cross_attn:
            parts["cross"] = CrossAttention(dim, context_dim, num_heads, **drops)  # type: ignore[arg-type]
        parts["mlp"] = _mlp(dim, mlp_ratio, mlp_type, act_layer, proj_drop)
        for name, part in parts.items():
            self.add_module(f"norm_{name}", _norm(dim, norm_eps, affine=not use_adaln))
            self.add_module(name, part)
            scale = LayerScale(dim, layer_scale_init) if use_layer_scale else nn.Identity()
            self.add_module(f"scale_{name}", scale)
        self.names = tuple(parts)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.adaln = _zero_linear(dim, 3 * len(parts) * dim) if use_adaln else None

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        t: Tensor | None = None,
        attn_mask: Tensor | None = None,
        grid: Sequence[int] | None = None,
        indices: Tensor | None = None,
    ) -> Tensor:
        """The tokens after the block.

        Args:
            x: Tokens, shape ``(B, N, dim)``.
            context: Shape ``(B, M, context_dim)``; needed with cross-attention.
            t: Condition, shape ``(B, dim)``; needed with AdaLN.
            attn_mask: Where the self-attention may not look; see :class:`Attention`.
            grid: Sides of the positions' grid, for rotations.
            indices: Places on the grid.

        Raises:
            ValueError: If the context or the condition is missing.
        """
        if "cross" in self.names and context is None:
            raise ValueError("A block with cross-attention needs `context`.")
        if self.adaln is not None and t is None:
            raise ValueError("A block with AdaLN needs the condition `t`.")
        arguments: dict[str, tuple[Any, ...]] = {
            "attn": (attn_mask, grid, indices),
            "cross": (context,),
            "mlp": (),
        }
        changes = None if self.adaln is None else self.adaln(t).chunk(3 * len(self.names), dim=1)
        for place, name in enumerate(self.names):
            y = self.get_submodule(f"norm_{name}")(x)
            if changes is not None:
                y = modulate(y, changes[3 * place], changes[3 * place + 1])
            y = self.get_submodule(f"scale_{name}")(self.get_submodule(name)(y, *arguments[name]))
            gate = 1.0 if changes is None else changes[3 * place + 2].unsqueeze(1)
            x = x + self.drop_path(gate * y)
        return x


def _mlp(
    dim: int, ratio: float, kind: MlpType, act_layer: type[nn.Module], drop: float
) -> nn.Module:
    if kind == "swiglu":
        return SwiGLU(dim, int(dim * ratio * 2 / 3), drop=drop)
    if kind != "gelu":
        raise ValueError(f"`mlp_type` must be 'gelu' or 'swiglu', got {kind!r}.")
    return Mlp(dim, int(dim * ratio), act_layer=act_layer, drop=drop)


def _norm(dim: int, eps: float, *, affine: bool) -> nn.LayerNorm:
    return nn.LayerNorm(dim, eps=eps, elementwise_affine=affine)


def _zero_linear(dim: int, out: int) -> nn.Sequential:
    linear = nn.Linear(dim, out)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.SiLU(), linear)
