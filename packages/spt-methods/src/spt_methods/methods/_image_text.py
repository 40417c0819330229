"""What the image-text methods share: the tokens of a batch, and text towers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from spt_methods.backbones.encoder import width_of
from spt_methods.backbones.text import TextTransformer
from spt_methods.views import Batch

TextTokenizer = Callable[[list[str]], Tensor]


def tokens_of_texts(
    tokenizer: TextTokenizer, views: list[Batch], device: torch.device, caller: str
) -> Tensor:
    """Token numbers ``(V * N, L)`` of the views' texts, sent to the device without waiting for it.

    Args:
        tokenizer: From a list of texts to token numbers ``(N, L)``.
        views: Each with ``tokens``, numbers made in the loader, or with ``text``, a list of strings.
        device: Where to send them.
        caller: Who asks, for the message.

    Raises:
        ValueError: If a view has neither.
    """
    parts = []
    for view in views:
        if "tokens" in view:
            parts.append(view["tokens"])
        elif "text" in view:
            parts.append(tokenizer(list(view["text"])))
        else:
            raise ValueError(
                f"{caller} trains on images with texts: it needs 'text' (strings) or 'tokens' beside "
                f"'image', got {sorted(map(str, view))}."
            )
    return torch.cat(parts).to(device, non_blocking=True)


def text_transformer(
    tokenizer: Any, width: int, depth: int, num_heads: int, **settings: Any
) -> TextTransformer:
    """A text transformer of some width, blocks and heads for a tokenizer's tokens.

    Raises:
        ValueError: If the tokenizer does not tell of them.
    """
    if not (hasattr(tokenizer, "vocab_size") and hasattr(tokenizer, "context_length")):
        raise ValueError(
            f"The tokenizer {type(tokenizer).__name__} has no `vocab_size` and `context_length` to make "
            "a text encoder for: give `text_encoder` too."
        )
    return TextTransformer(
        tokenizer.vocab_size, width, depth, num_heads, tokenizer.context_length, **settings
    )


def text_tower(encoder: nn.Module, embed_dim: int, bias: bool) -> nn.Sequential:
    """A text encoder with ``num_features`` and its projection to the common space."""
    width = width_of(encoder)
    projection = nn.Linear(width, embed_dim, bias=bias)
    nn.init.normal_(projection.weight, std=width**-0.5)
    if bias:
        nn.init.zeros_(projection.bias)
    return nn.Sequential(encoder, projection)


def check_tokenizer(tokenizer: Any, encoder: nn.Module) -> None:
    """Refuse a tokenizer that knows more tokens than the text encoder.

    Raises:
        TypeError: If it cannot be called.
        ValueError: If it has too many tokens, or rows that are too long.
    """
    if not callable(tokenizer):
        raise TypeError(f"`tokenizer` must be callable, got {type(tokenizer).__name__}.")
    embedding = getattr(encoder, "token_embedding", None)
    for name, has in (
        ("vocab_size", getattr(embedding, "num_embeddings", None)),
        ("context_length", getattr(encoder, "context_length", None)),
    ):
        wants = getattr(tokenizer, name, None)
        if wants is not None and has is not None and wants > has:
            raise ValueError(
                f"The tokenizer's `{name}` is {wants}, the text encoder's {has}: make the encoder with "
                "that of its tokenizer."
            )
