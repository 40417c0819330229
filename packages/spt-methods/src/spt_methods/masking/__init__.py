"""Which patches a method hides: drawn per batch, seeded, and as the papers say."""

from spt_methods.masking.blocks import BlockMasking as BlockMasking
from spt_methods.masking.blocks import RatioBlockMasking as RatioBlockMasking
from spt_methods.masking.blocks import block_masks as block_masks
from spt_methods.masking.multiblock import IJEPAMasking as IJEPAMasking
from spt_methods.masking.multiblock import IJEPAMaskOutput as IJEPAMaskOutput
from spt_methods.masking.partial import PartialMasking as PartialMasking
from spt_methods.masking.partial import PartialMaskingOutput as PartialMaskingOutput
from spt_methods.masking.patches import MaskingOutput as MaskingOutput
from spt_methods.masking.patches import PatchMasking as PatchMasking
from spt_methods.masking.patches import keep_tokens as keep_tokens
from spt_methods.masking.seeded import SeededMasking as SeededMasking
from spt_methods.masking.tubes import MultiBlockMasking as MultiBlockMasking
from spt_methods.masking.tubes import RandomTubeMasking as RandomTubeMasking
from spt_methods.masking.tubes import TubeMasking as TubeMasking
from spt_methods.masking.tubes import TubeMaskOutput as TubeMaskOutput
from spt_methods.masking.units import UnitMasking as UnitMasking
