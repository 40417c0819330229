"""Visual tokens without training: random projections of patches to a random codebook.

Chiu et al., "Self-supervised Learning with Random-projection Quantizer for Speech Recognition", ICML
2022. https://arxiv.org/abs/2202.01855
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spt_methods.backbones.patches import patchify


class RandomProjectionTokenizer(nn.Module):
    """The nearest of random codes to a random projection of each patch, standardised.

    It learns nothing and knows nothing of images; a trained tokenizer, such as
    :class:`spt_methods.methods.VQTokenizer`, gives targets with more meaning.

    Args:
        vocab_size: Codes.
        patch_size: Side of a patch.
        in_channels: Of the images.
        dim: Width of the codes.
        seed: Of projection and codes.

    Example:
        >>> tokens = RandomProjectionTokenizer(64, 8)(torch.rand(2, 3, 32, 32))
        >>> tokens.shape, tokens.dtype
        (torch.Size([2, 16]), torch.int64)
    """

    projection: Tensor
    codes: Tensor

    def __init__(
        self,
        vocab_size: int = 8192,
        patch_size: int = 16,
        in_channels: int = 3,
        dim: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(vocab_size, patch_size, in_channels, dim) < 1:
            raise ValueError("`vocab_size`, `patch_size`, `in_channels` and `dim` must be >= 1.")
        generator = torch.Generator().manual_seed(seed)
        values = in_channels * patch_size**2
        projection = torch.randn(values, dim, generator=generator) / values**0.5
        codes = torch.randn(vocab_size, dim, generator=generator)
        self.vocab_size = vocab_size
        self.patch = (in_channels, patch_size, patch_size)
        self.register_buffer("projection", projection)
        self.register_buffer("codes", F.normalize(codes, dim=1))

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Tokens ``(B, N)`` of images ``(B, C, H, W)``, row by row."""
        patches = patchify(images.to(self.projection.dtype), self.patch)
        deviation, mean = torch.std_mean(patches, dim=-1, keepdim=True)
        projected = ((patches - mean) / (deviation + 1e-6)) @ self.projection
        return (F.normalize(projected, dim=-1) @ self.codes.T).argmax(-1)
