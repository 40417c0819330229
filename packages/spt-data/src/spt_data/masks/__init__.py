"""Patch masks, drawn in a loader's worker: of one image, or of a batch when it is collated."""

from spt_data.masks.blockwise import BlockwiseMask as BlockwiseMask
from spt_data.masks.blockwise import RatioBlockwiseMask as RatioBlockwiseMask
from spt_data.masks.blockwise import blockwise_mask as blockwise_mask
from spt_data.masks.multiblock import ContextTargetsMultiBlockMask as ContextTargetsMultiBlockMask
from spt_data.masks.multiblock import multi_block_mask as multi_block_mask
from spt_data.masks.patch import PatchMasking as PatchMasking
from spt_data.masks.random import RandomMask as RandomMask
from spt_data.masks.random import UnitMask as UnitMask
