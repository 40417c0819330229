"""Dict datasets, transforms, the `DataModule`: ``spt_data``, and ``gpu_transforms``."""

from typing import TYPE_CHECKING

from stable_pretraining._lazy import mirror, offer

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
offer(
    __name__,
    gpu_transforms="spt_augment",
    transforms="spt_data.transforms",
    static="spt_data.static",
    synthetic_data="spt_data.synthetic_data",
    datasets="spt_data.datasets",
    masking="spt_data.masking",
    module="spt_data.module",
    utils="spt_data.utils",
)
