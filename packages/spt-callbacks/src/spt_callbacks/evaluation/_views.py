"""Which rows are views of one image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spt_callbacks.keys import Key, look_up


class SampleIds:
    """A key: the image's number of each row of the embeddings.

    Numbers given once per image are repeated view by view, as ``torch.cat`` of views orders rows.
    Two that read the same keys are one key, so callbacks share a queue of them.

    Args:
        target: Key of the embeddings.
        group: Key of the numbers.
        caller: Who asks, for messages.
    """

    def __init__(self, target: Key, group: Key, caller: str) -> None:
        self.target = target
        self.group = group
        self.caller = caller

    def __call__(self, outputs: Any, batch: Any) -> Tensor:
        """The numbers ``(N,)`` of the N rows.

        Raises:
            ValueError: If the rows are no multiple of the numbers, or these are no integers.
        """
        numbers = look_up(self.group, outputs, batch, self.caller)
        rows = len(look_up(self.target, outputs, batch, self.caller))
        views, rest = divmod(rows, max(len(numbers), 1))
        if rest or numbers.ndim != 1 or numbers.is_floating_point():
            raise ValueError(
                f"{self.caller} needs one integer of {self.group!r} per row of {self.target!r}, or "
                f"one per image, got {tuple(numbers.shape)} {numbers.dtype} for {rows} rows."
            )
        return numbers.repeat(views)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SampleIds) and (self.target, self.group) == (
            other.target,
            other.group,
        )

    def __hash__(self) -> int:
        return hash((self.target, self.group))

    def __repr__(self) -> str:
        return repr(self.group)


def sample_ids(target: Key, group: Key, caller: str) -> Key:
    """The key of the image's number of each row; see :class:`SampleIds`."""
    return SampleIds(target, group, caller)


def newest_views(groups: Tensor, n_groups: int, per_group: int) -> Tensor:
    """Indices of the newest rows of the newest groups that have at least two rows, in order.

    Args:
        groups: Group of each row, oldest row first, ``(N,)``.
        n_groups: Groups at most.
        per_group: Rows of each at most.

    Example:
        >>> newest_views(torch.tensor([7, 5, 7, 5, 5, 1]), 2, 2).tolist()
        [0, 2, 3, 4]
    """
    age = torch.arange(len(groups) - 1, -1, -1, device=groups.device)
    _, index = groups.unique(return_inverse=True)
    order = torch.argsort(index * len(groups) + age)  # group by group, the newest row first
    sorted_index = index[order]
    starts = torch.searchsorted(sorted_index, sorted_index)
    place = torch.arange(len(groups), device=groups.device) - starts  # 0 for a group's newest row
    counts = torch.bincount(index, minlength=1)
    newest = torch.full_like(counts, len(groups)).scatter_reduce_(0, index, age, "amin")
    newest[counts < 2] = 2 * len(groups)
    chosen = torch.zeros_like(counts, dtype=torch.bool)
    best = newest.argsort()[:n_groups]
    chosen[best[newest[best] < len(groups)]] = True
    return order[(place < per_group) & chosen[sorted_index]].sort().values
