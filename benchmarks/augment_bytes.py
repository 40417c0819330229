"""What an accelerator reads and writes for three recipes, counted without one.

The recipes run on torch's ``meta`` device, which knows shapes and computes nothing, with each
function that would be compiled run there as it is and counted as one operation, which reads its
inputs once and writes its result once. Other operations of torch on the device count as such. The
floor reads every image once and writes every view once; a step's bytes are given as multiples of it.

    python benchmarks/augment_bytes.py [--batch=256]
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

import torch
from spt_augment import GPUCompose, recipes
from spt_augment._random import drawing
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SIDE = 256
NAMES = ("simclr", "byol", "dino")
STEPS = {
    "crop": ("line_taps", "resample"),
    "colours": ("colour_mean", "colour_pass"),
    "blur": ("padded_rows", "sum_of_taps", "put_filtered"),
}


class Count(TorchDispatchMode):
    """Operations on the device and their bytes; also the compiler of the chains."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.bytes: Counter[str] = Counter()

    def add(self, name: str, moved: int) -> None:
        self.operations += 1
        self.bytes[name] += moved

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        made = [t for t in tree_leaves(out) if isinstance(t, Tensor) and t.is_meta]
        if made and not is_view(func):
            read = [] if "zeros" in str(func) else given  # only their shape is
            self.add(str(func), sum(t.nbytes for t in [*read, *made]))
        return out

    def __call__(
        self,
        function: Callable[..., Tensor],
        tensors: tuple[Tensor, ...],
        fixed: tuple[Hashable, ...],
    ) -> Tensor:
        """In the place of :class:`spt_augment._compile.Compiler`."""
        with torch.utils._python_dispatch._disable_current_modes():
            out = function(*tensors, *fixed)
        self.add(function.__name__, moved(function.__name__, tensors, out))
        return out


def is_view(func: Any) -> bool:
    """Whether an operation only looks at its argument in another way."""
    aliases = [a.alias_info for a in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


def moved(name: str, tensors: tuple[Tensor, ...], out: Tensor) -> int:
    """Bytes of a compiled function; those of a blur touch the chosen rows of the batch only."""
    if name == "padded_rows":
        rows, images = tensors
        return len(rows) * images[0].nbytes + out.nbytes
    if name == "put_filtered":
        images, rows, lines, _ = tensors
        return lines.nbytes + len(rows) * images[0].nbytes
    return sum(tensor.nbytes for tensor in tensors) + out.nbytes


def count(name: str, size: int) -> tuple[Count, int]:
    """The count of one batch, and the bytes of the floor."""
    chain = recipes.preset(name)
    counter = Count()
    for module in chain.modules():
        if isinstance(module, GPUCompose):
            module.compiles_on = {"meta"}
            module._compiler = counter  # type: ignore[assignment]
    images = torch.empty(size, 3, SIDE, SIDE, dtype=torch.uint8, device="meta")
    with torch.no_grad(), drawing("benchmark", 0), counter:
        out = chain({"image": images})
    views = out.get("views") or [v for v in out.values() if isinstance(v, dict) and "image" in v]
    return counter, images.nbytes + sum(view["image"].nbytes for view in views)


def main(arguments: list[str]) -> None:
    """Print a table in Markdown."""
    given = dict(a[2:].split("=", 1) for a in arguments if "=" in a)
    size = int(given.get("batch", 256))
    print(f"batches of {size} uint8 images of {SIDE} pixels\n")
    print(f"| recipe | operations | MB | {' | '.join(STEPS)} | all, x bytes floor |")
    print("|---|---|---|---|---|---|---|")
    for name in NAMES:
        counter, floor = count(name, size)
        steps = [sum(counter.bytes[n] for n in functions) for functions in STEPS.values()]
        shares = [f"{moved / floor:.2f}" for moved in [*steps, counter.bytes.total()]]
        total = counter.bytes.total() / 1e6
        print(f"| {name} | {counter.operations} | {total:,.0f} | {' | '.join(shares)} |")


if __name__ == "__main__":
    main(sys.argv[1:])
