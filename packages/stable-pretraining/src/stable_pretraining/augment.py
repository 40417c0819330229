"""Batched augmentation on the accelerator: the names of ``spt_augment``."""

from typing import TYPE_CHECKING

from stable_pretraining._lazy import mirror

if TYPE_CHECKING:
    from spt_augment import *

__getattr__, __dir__ = mirror(__name__, "spt_augment")
