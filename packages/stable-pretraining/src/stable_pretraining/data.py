"""Dict datasets, transforms, the `DataModule`: ``spt_data`` and ``gpu_transforms``."""

from typing import TYPE_CHECKING

from stable_pretraining._lazy import mirror

if TYPE_CHECKING:
    from spt_data import *

__getattr__, __dir__ = mirror(__name__, "spt_data", gpu_transforms="spt_augment")
