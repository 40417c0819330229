"""A transformer over tokens of text: the text tower of CLIP and of SigLIP.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
section 2.4. https://arxiv.org/abs/2103.00020; official code https://github.com/openai/CLIP. Zhai et al.,
"Sigmoid Loss for Language Image Pre-Training", ICCV 2023. https://arxiv.org/abs/2303.15343; official
code https://github.com/google-research/big_vision.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from spt_methods.backbones.causal import blocked_future
from spt_methods.backbones.transformer import TransformerBlock


class TextTransformer(nn.Module):
    """Token and position embeddings, pre-norm blocks, a norm, and one token's features per text.

    Args:
        vocab_size: Tokens.
        width: Of the features.
        depth: Blocks.
        num_heads: Heads.
        context_length: Positions.
        causal: Whether a token sees only itself and those before it, as in CLIP.
        pool: The features at the first end token (``"end"``, CLIP) or at the last place (``"last"``,
            SigLIP).
        end_token: Number of the end token; ``vocab_size - 1`` if ``None``.
        act_layer: Activation of the MLPs. OpenAI's released weights have ``x sigmoid(1.702 x)``.
        norm_eps: Epsilon of the norms; SigLIP's is 1e-6.

    Attributes:
        num_features: ``width``.

    Raises:
        ValueError: If ``pool`` is unknown.
    """

    def __init__(
        self,
        vocab_size: int,
        width: int = 512,
        depth: int = 12,
        num_heads: int = 8,
        context_length: int = 77,
        causal: bool = True,
        pool: Literal["end", "last"] = "end",
        end_token: int | None = None,
        act_layer: type[nn.Module] = nn.GELU,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if pool not in ("end", "last"):
            raise ValueError(f"`pool` must be 'end' or 'last', got {pool!r}.")
        self.num_features = width
        self.context_length = context_length
        self.causal, self.pool = causal, pool
        self.end_token = vocab_size - 1 if end_token is None else end_token
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.pos_embed = nn.Parameter(torch.empty(context_length, width))
        self.blocks = nn.ModuleList(
            TransformerBlock(width, num_heads, act_layer=act_layer, norm_eps=norm_eps)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self._initialise(width, depth)

    def _initialise(self, width: int, depth: int) -> None:
        """``initialize_parameters`` of the official CLIP."""
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.pos_embed, std=0.01)
        for block in self.blocks:
            parts: Any = block
            nn.init.normal_(parts.attn.qkv.weight, std=width**-0.5)
            nn.init.normal_(parts.attn.proj.weight, std=(2 * depth * width) ** -0.5)
            nn.init.normal_(parts.mlp.fc1.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(parts.mlp.fc2.weight, std=(2 * depth * width) ** -0.5)
            for bias in (parts.attn.qkv.bias, parts.attn.proj.bias):
                nn.init.zeros_(bias)

    def tokens(self, numbers: Tensor) -> Tensor:
        """Features of every token after the norm, ``(N, L, width)``, of numbers ``(N, L)``.

        Raises:
            ValueError: If there are more tokens than positions.
        """
        length = numbers.shape[1]
        if length > self.context_length:
            raise ValueError(
                f"Texts have {length} tokens, the text tower has {self.context_length} positions; make "
                "the tokenizer with that `context_length`."
            )
        x = self.token_embedding(numbers) + self.pos_embed[:length]
        blocked = blocked_future(length, device=x.device) if self.causal else None
        for block in self.blocks:
            x = block(x, attn_mask=blocked)
        out: Tensor = self.norm(x)
        return out

    def forward(self, numbers: Tensor) -> Tensor:
        """Features ``(N, width)`` of token numbers ``(N, L)``."""
        x = self.tokens(numbers)
        if self.pool == "last":
            return x[:, -1]
        end = (numbers == self.end_token).int().argmax(1)  # the first of them
        return x[torch.arange(len(x), device=x.device), end]
