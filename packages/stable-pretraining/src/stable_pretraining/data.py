"""Dict datasets, transforms, the `DataModule`: ``spt_data`` and ``gpu_transforms``."""

from typing import TYPE_CHECKING

from stable_pretraining._lazy import mirror

if TYPE_CHECKING:
    import spt_augment
    from spt_data import *

    gpu_transforms = spt_augment

__getattr__, __dir__ = mirror(__name__, "spt_data", gpu_transforms="spt_augment")
