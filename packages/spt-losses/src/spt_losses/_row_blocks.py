"""Rows in blocks: what is needed for a moment only is never as large as the matrix itself."""

from __future__ import annotations

from torch import Tensor


def rows_per_block(x: Tensor, width: int, *, elements: int = 2**17) -> int:
    """How many rows of ``width`` to take at a time where ``x`` lies.

    So many elements stay in a CPU's cache; a GPU wants few kernels.
    """
    return max(1, (elements if x.device.type == "cpu" else 2**24) // max(1, width))


def row_blocks(x: Tensor, *, elements: int = 2**17) -> tuple[Tensor, ...]:
    """Views of ``x`` ``(N, K)``, block after block."""
    blocks: tuple[Tensor, ...] = x.split(rows_per_block(x, x.shape[1], elements=elements))
    return blocks
