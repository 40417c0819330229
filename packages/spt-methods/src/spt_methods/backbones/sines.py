"""A transformer as masked autoencoders begin it: fixed sine positions, Xavier weights.

He et al., "Masked Autoencoders", CVPR 2022, appendix A.1. https://arxiv.org/abs/2111.06377; official
code https://github.com/facebookresearch/mae, ``initialize_weights``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from spt_methods.backbones.pos_embed import get_sincos_pos_embed
from spt_methods.backbones.vit_tokens import ViTTokens


@torch.no_grad()
def fix_positions(encoder: ViTTokens) -> None:
    """Replace learned positions by fixed 2-D sines, zero for prefix tokens, changed in place.

    A transformer without a table of positions (rotary, relative) is left alone.
    """
    positions = getattr(encoder.vit, "pos_embed", None)
    if not isinstance(positions, nn.Parameter):
        return
    rows, columns = encoder.default_grid
    table = get_sincos_pos_embed(positions.shape[-1], rows * columns, "2d", (rows, columns))
    positions.zero_()
    positions[0, positions.shape[1] - len(table) :] = table
    positions.requires_grad_(False)


@torch.no_grad()
def xavier_init(module: nn.Module) -> None:
    """Xavier-uniform linear layers with zero biases, and the patch projection as one of them.

    Tokens of the module's own (class, mask) are normal with deviation 0.02. Changed in place.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    vit: Any = getattr(module, "vit", None)
    if vit is not None:
        nn.init.xavier_uniform_(vit.patch_embed.proj.weight.flatten(1))
    for name, parameter in module.named_parameters():
        if name.rpartition(".")[2] in ("cls_token", "mask_token"):
            nn.init.normal_(parameter, std=0.02)


def masked_autoencoder_init(encoder: ViTTokens, *, pretrained: bool) -> None:
    """Both of the above, unless the weights are pretrained ones, which stay as they are."""
    if not pretrained:
        xavier_init(encoder)
        fix_positions(encoder)
