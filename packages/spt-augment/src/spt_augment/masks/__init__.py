"""Masks of patches for a whole batch."""

from spt_augment.masks.blockwise import BatchBlockwiseMask as BatchBlockwiseMask
from spt_augment.masks.multiblock import BatchMultiBlockMask as BatchMultiBlockMask
from spt_augment.masks.random import BatchRandomMask as BatchRandomMask
