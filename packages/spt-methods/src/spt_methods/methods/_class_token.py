"""Methods that work on class tokens, and say so early."""

from __future__ import annotations

from typing import Any


def check_class_token(encoder: Any, caller: str) -> None:
    """Refuse a :class:`spt_methods.backbones.ViTTokens` that does not return its class token.

    Raises:
        ValueError: If it has none or pools otherwise.
    """
    pooled = encoder.vit.global_pool
    if getattr(encoder.vit, "cls_token", None) is None or pooled != "token":
        raise ValueError(
            f"{caller} needs an encoder that returns its class token (`global_pool='token'`), got "
            f"{type(encoder.vit).__name__} with `global_pool={pooled!r}`."
        )
