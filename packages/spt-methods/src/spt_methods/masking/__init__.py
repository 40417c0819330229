"""Which patches a method hides: drawn on the batch's device, seeded, and as the papers say."""

from spt_methods.masking.patches import MaskingOutput as MaskingOutput
from spt_methods.masking.patches import PatchMasking as PatchMasking
from spt_methods.masking.patches import keep_tokens as keep_tokens
from spt_methods.masking.seeded import SeededMasking as SeededMasking
