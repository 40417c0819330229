"""Dict datasets, transforms, the `DataModule`: ``spt_data``, and ``gpu_transforms``."""

from typing import TYPE_CHECKING

from stable_pretraining._lazy import mirror

if TYPE_CHECKING:
    import spt_augment
    from spt_augment import GPUCompose as GPUCompose
    from spt_augment import MultiView as MultiView
    from spt_augment import StackedMultiView as StackedMultiView
    from spt_augment import ToDevice as ToDevice
    from spt_data import *

    gpu_transforms = spt_augment

_OF_AUGMENT = ("GPUCompose", "MultiView", "StackedMultiView", "ToDevice")

__getattr__, __dir__ = mirror(
    __name__,
    "spt_data",
    borrowed=dict.fromkeys(_OF_AUGMENT, "spt_augment"),
    gpu_transforms="spt_augment",
)
