"""Compiling a tensor function once, whatever the batch and the image size.

torch keeps its graphs per code object and gives up after a few of them. Here each fixed setting
has a code object of its own, sizes are symbols from the start, and a batch of one, which torch
would specialise to, passes as two equal rows: so each function is compiled once and for all.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Hashable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

_numbers = itertools.count()


class Compiler:
    """Calls functions of tensors compiled.

    Args:
        mode: For ``torch.compile``.
        dynamic: Sizes are symbols; ``False`` compiles anew for every size.
    """

    def __init__(self, mode: str | None = None, dynamic: bool = True) -> None:
        self.mode = mode
        self.dynamic = dynamic

    def __call__(
        self,
        function: Callable[..., Tensor],
        tensors: tuple[Tensor, ...],
        fixed: tuple[Hashable, ...],
    ) -> Tensor:
        """``function(*tensors, *fixed)``, whose result has the rows of the first tensor.

        A function that writes to a tensor must return it: of a single row it gets a copy.
        """
        n = len(tensors[0])
        tensors = tuple(tensor.detach() for tensor in tensors)  # what they are views of is no input
        if self.dynamic:
            tensors = tuple(_two_rows(tensor) for tensor in tensors)
            for tensor in tensors:
                dims = [0, *range(2, tensor.ndim)]  # channels and taps are fixed
                torch._dynamo.maybe_mark_dynamic(tensor, dims)
        types = tuple((tensor.dtype, tensor.device.type) for tensor in tensors)
        kinds = (*types, torch.is_inference_mode_enabled())
        compiled = _compiled(function, fixed, kinds, self.mode, None if self.dynamic else False)
        out: Tensor = compiled(*tensors)
        return out[:n]


def _two_rows(tensor: Tensor) -> Tensor:
    return tensor.repeat(2, *[1] * (tensor.ndim - 1)) if len(tensor) == 1 else tensor


@functools.cache
def _compiled(
    function: Callable[..., Tensor],
    fixed: tuple[Any, ...],
    kinds: tuple[Hashable, ...],
    mode: str | None,
    dynamic: bool | None,
) -> Callable[..., Tensor]:
    def call(*tensors: Tensor) -> Tensor:
        return function(*tensors, *fixed)

    name = f"{function.__name__}_{next(_numbers)}"
    code = call.__code__.replace(co_name=name)
    own = FunctionType(code, call.__globals__, name, None, call.__closure__)
    compiled: Callable[..., Tensor] = torch.compile(
        own, fullgraph=True, dynamic=dynamic, options=_options(mode, dynamic)
    )
    return compiled


INDUCTOR: dict[str, int | bool] = {
    # planes go where they belong; else they are written first and stacked then
    "max_pointwise_cat_inputs": 0,
    "max_complex_pointwise_cat_inputs": 0,
    # rows and columns of threads: a single index would be divided by sizes that are not constants,
    # at a cost of half of all instructions
    "triton.prefer_nd_tiling": True,
    "triton.max_tiles": 2,
}
"""For accelerators, without effect on a processor; a torch that lacks a name goes without."""


def _options(mode: str | None, dynamic: bool | None) -> dict[str, Any]:
    chosen = dict(torch._inductor.list_mode_options(mode, dynamic)) if mode else {}
    known = torch._inductor.config.get_config_copy()
    return {**chosen, **{name: value for name, value in INDUCTOR.items() if name in known}}
