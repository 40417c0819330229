"""Batched image augmentation on the accelerator, with view fan-out."""

from spt_augment.affine import GPURandomAffine as GPURandomAffine
from spt_augment.affine import GPURandomRotation as GPURandomRotation
from spt_augment.base import BatchTransform as BatchTransform
from spt_augment.base import ImageTransform as ImageTransform
from spt_augment.blur import GPUGaussianBlur as GPUGaussianBlur
from spt_augment.color import GPUColorJitter as GPUColorJitter
from spt_augment.color import GPUNormalize as GPUNormalize
from spt_augment.color import GPURandomGrayscale as GPURandomGrayscale
from spt_augment.color import GPURandomSolarize as GPURandomSolarize
from spt_augment.compose import GPUCompose as GPUCompose
from spt_augment.device import ToDevice as ToDevice
from spt_augment.geometric import GPURandomHorizontalFlip as GPURandomHorizontalFlip
from spt_augment.geometric import GPURandomResizedCrop as GPURandomResizedCrop
from spt_augment.resolve import GPUTransformMixin as GPUTransformMixin
from spt_augment.resolve import apply_gpu_transform as apply_gpu_transform
from spt_augment.resolve import find_gpu_transform as find_gpu_transform
from spt_augment.resolve import reject_module_gpu_transform as reject_module_gpu_transform
from spt_augment.views import MultiView as MultiView
from spt_augment.views import StackedMultiView as StackedMultiView
