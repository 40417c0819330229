"""Tell losses that remember (queues, centres, covariances) how many batches make a step."""

from __future__ import annotations

from torch import nn

from spt_losses._checks import check_count
from spt_losses._pending import Pending


def set_accumulation(module: nn.Module, accumulate: int) -> None:
    """Let every loss below a module wait for so many batches, as its ``accumulate`` would.

    Args:
        module: Searched with all its submodules.
        accumulate: Batches per optimizer step, at least 1.

    Example:
        >>> from spt_losses import MoCoLoss
        >>> loss = MoCoLoss(8, 2)
        >>> set_accumulation(loss, 4)
        >>> loss.queue
        FeatureQueue(length=8, dim=2, accumulate=4)
    """
    check_count("accumulate", accumulate)
    for part in _remembering(module):
        part._pending.accumulate = accumulate  # type: ignore[union-attr]


def flush_accumulated(module: nn.Module) -> None:
    """Close a step that was shorter than the others, in every loss below a module.

    Args:
        module: Searched with all its submodules.
    """
    for part in _remembering(module):
        close = getattr(part, "flush", None) or part.apply_center_update
        close()  # type: ignore[operator]


def _remembering(module: nn.Module) -> list[nn.Module]:
    return [m for m in module.modules() if isinstance(getattr(m, "_pending", None), Pending)]
