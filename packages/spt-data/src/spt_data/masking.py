"""Functions of patch masks; the transforms are in ``spt_data.masks``."""

from spt_data.masks.blockwise import blockwise_mask as blockwise_mask
from spt_data.masks.multiblock import multi_block_mask as multi_block_mask
from spt_data.masks.random import num_kept as num_kept
