"""How many parameters each part of a module has."""

from __future__ import annotations

from dataclasses import dataclass

import lightning as pl
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn.parameter import is_lazy


@dataclass(frozen=True)
class PartSize:
    """Elements of a part, its children included; a shared tensor counts once a part.

    Attributes:
        name: Dotted name; empty for the whole.
        kind: Class name.
        trainable: Elements that get a gradient.
        frozen: Elements that do not.
        uninitialised: Parameters (not elements) whose shape is not known yet.
        buffers: Elements of buffers.
    """

    name: str
    kind: str
    trainable: int
    frozen: int
    uninitialised: int
    buffers: int


class ModuleSummary(pl.Callback):
    """Print the sizes of a module's parts when the Trainer sets it up, on rank 0.

    Args:
        max_depth: Levels of parts below the module, at least 0.

    Raises:
        ValueError: If ``max_depth`` is negative.
    """

    def __init__(self, max_depth: int = 2) -> None:
        if max_depth < 0:
            raise ValueError(f"`max_depth` must be >= 0, got {max_depth}.")
        self.max_depth = max_depth

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Print."""
        if trainer.is_global_zero:
            Console(soft_wrap=True).print(summary_table(part_sizes(pl_module, self.max_depth)))


def part_sizes(module: nn.Module, max_depth: int = 2) -> list[PartSize]:
    """The sizes of a module and of its parts, in order of definition.

    Args:
        module: Any module.
        max_depth: Levels below it.

    Example:
        >>> [(p.name, p.trainable) for p in part_sizes(nn.Sequential(nn.Linear(2, 3)))]
        [('', 9), ('0', 9)]
    """
    named = module.named_modules(remove_duplicate=True)
    return [_size(name, part) for name, part in named if _depth(name) <= max_depth]


def _depth(name: str) -> int:
    return name.count(".") + 1 if name else 0


def _size(name: str, part: nn.Module) -> PartSize:
    parameters = list(part.parameters())
    known = [p for p in parameters if not is_lazy(p)]
    return PartSize(
        name=name,
        kind=type(part).__name__,
        trainable=sum(p.numel() for p in known if p.requires_grad),
        frozen=sum(p.numel() for p in known if not p.requires_grad),
        uninitialised=len(parameters) - len(known),
        buffers=sum(b.numel() for b in part.buffers() if not is_lazy(b)),
    )


def summary_table(sizes: list[PartSize]) -> Table:
    """The sizes as a table."""
    table = Table("part", "class", title="Parameters")
    for column in ("trainable", "frozen", "uninitialised", "buffers"):
        table.add_column(column, justify="right")
    for size in sizes:
        counts = (size.trainable, size.frozen, size.uninitialised, size.buffers)
        name = "  " * _depth(size.name) + (size.name.rpartition(".")[2] or "(all)")
        table.add_row(name, size.kind, *(f"{count:,}" if count else "" for count in counts))
    return table
