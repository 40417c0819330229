"""Transforms of a sample, run in a loader's worker; the operations are torchvision's v2.

A transform takes a dict and returns a new one. ``source`` and ``target`` are keys, paths with dots
(``"views.0.image"``) or several of them. Random transforms leave what they drew under the name of
their class.
"""

from spt_data._base import SampleTransform as SampleTransform
from spt_data._modes import to_rgb as to_rgb
from spt_data.masks.blockwise import BlockwiseMask as BlockwiseMask
from spt_data.masks.blockwise import RatioBlockwiseMask as RatioBlockwiseMask
from spt_data.masks.multiblock import ContextTargetsMultiBlockMask as ContextTargetsMultiBlockMask
from spt_data.masks.patch import PatchMasking as PatchMasking
from spt_data.masks.random import RandomMask as RandomMask
from spt_data.masks.random import UnitMask as UnitMask
from spt_data.transforms.blur import AdditiveGaussian as AdditiveGaussian
from spt_data.transforms.blur import GaussianBlur as GaussianBlur
from spt_data.transforms.blur import GaussianNoise as GaussianNoise
from spt_data.transforms.blur import PILGaussianBlur as PILGaussianBlur
from spt_data.transforms.blur import RandomErasing as RandomErasing
from spt_data.transforms.color import ColorJitter as ColorJitter
from spt_data.transforms.color import RandAugment as RandAugment
from spt_data.transforms.color import RandomAdjustSharpness as RandomAdjustSharpness
from spt_data.transforms.color import RandomAutocontrast as RandomAutocontrast
from spt_data.transforms.color import RandomChannelPermutation as RandomChannelPermutation
from spt_data.transforms.color import RandomEqualize as RandomEqualize
from spt_data.transforms.color import RandomGrayscale as RandomGrayscale
from spt_data.transforms.color import RandomInvert as RandomInvert
from spt_data.transforms.color import RandomPosterize as RandomPosterize
from spt_data.transforms.color import RandomSolarize as RandomSolarize
from spt_data.transforms.control import Compose as Compose
from spt_data.transforms.control import Conditional as Conditional
from spt_data.transforms.control import ControlledTransform as ControlledTransform
from spt_data.transforms.control import DrawSeed as DrawSeed
from spt_data.transforms.control import Lambda as Lambda
from spt_data.transforms.control import RoutingTransform as RoutingTransform
from spt_data.transforms.control import WrapTorchTransform as WrapTorchTransform
from spt_data.transforms.control import random_seed as random_seed
from spt_data.transforms.geometric import CenterCrop as CenterCrop
from spt_data.transforms.geometric import RandomAffine as RandomAffine
from spt_data.transforms.geometric import RandomCrop as RandomCrop
from spt_data.transforms.geometric import RandomHorizontalFlip as RandomHorizontalFlip
from spt_data.transforms.geometric import RandomPerspective as RandomPerspective
from spt_data.transforms.geometric import RandomResizedCrop as RandomResizedCrop
from spt_data.transforms.geometric import RandomRotation as RandomRotation
from spt_data.transforms.geometric import RandomVerticalFlip as RandomVerticalFlip
from spt_data.transforms.geometric import Resize as Resize
from spt_data.transforms.image import RGB as RGB
from spt_data.transforms.image import DecodeImage as DecodeImage
from spt_data.transforms.image import ToImage as ToImage
from spt_data.transforms.multiview import MultiViewTransform as MultiViewTransform
from spt_data.transforms.multiview import (
    RoundRobinMultiViewTransform as RoundRobinMultiViewTransform,
)
from spt_data.video import RandomContiguousTemporalSampler as RandomContiguousTemporalSampler
from spt_data.video import UniformTemporalSubsample as UniformTemporalSubsample

Transform = SampleTransform  # its shorter name
