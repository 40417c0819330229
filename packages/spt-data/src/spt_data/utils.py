"""Helpers of training programs."""

from __future__ import annotations

import os

from spt_data._ranks import rank_and_world
from spt_data.collate import apply_masks as apply_masks
from spt_data.views import fold_views as fold_views


def get_num_workers() -> int:
    """Loader workers for this process: the usable CPUs shared out among the ranks, at least 1.

    Note:
        All ranks count as one machine's, so that runs on several machines use fewer than they could.
    """
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        usable = os.cpu_count() or 1
    return max(1, usable // rank_and_world()[1])
