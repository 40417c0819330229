"""Precision and unit vectors, the same in every loss."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def widen(x: Tensor) -> Tensor:
    """``x`` in float32 or wider; float16 and bfloat16 are too narrow for losses."""
    if not x.is_floating_point():
        return x
    return x.to(torch.promote_types(x.dtype, torch.float32))


def no_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Context in which operations on ``x`` keep its dtype."""
    if x.is_meta:  # a device without autocast
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def _lengths(x: Tensor) -> Tensor:
    """Norms along the last axis, 1 for zero vectors: these stay zero and get a plain gradient."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.where(norm > 0, norm, torch.ones_like(norm))


class _Unit(torch.autograd.Function):
    """Division by the norm; backward needs the output and the norm alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        length = _lengths(x)
        y = x / length
        ctx.save_for_backward(y, length)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        y, length = ctx.saved_tensors
        along = (grad * y).sum(-1, keepdim=True)
        return torch.addcmul(grad, y, along, value=-1).div_(length)


def unit(x: Tensor) -> Tensor:
    """``x`` over its norm along the last axis; zero vectors stay zero."""
    y: Tensor = _Unit.apply(x)
    return y


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine along the last axis, 0 where a vector is zero; builds no unit copies."""
    dot = (a * b).sum(-1)
    return dot / (_lengths(a) * _lengths(b)).squeeze(-1)


def refuse_second_derivative() -> None:
    """Called in the backward of gradients that were formed in forward.

    Raises:
        RuntimeError: If this backward is itself to be differentiated.
    """
    if not torch.compiler.is_compiling() and torch.is_grad_enabled():
        raise RuntimeError(
            "This loss can be differentiated once; it was asked for with create_graph=True."
        )
