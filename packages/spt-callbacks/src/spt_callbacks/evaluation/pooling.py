"""From the tokens of transformer blocks to one vector an image, as linear probes read them.

DINOv2 (``dinov2/eval/linear.py``): the class tokens of the last blocks side by side, optionally
followed by the mean of the last block's patch tokens. https://github.com/facebookresearch/dinov2
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

Pooling = Literal["cls", "mean", "cls_mean"]


def pool_tokens(
    blocks: Sequence[Tensor], pooling: Pooling, *, num_prefix_tokens: int = 1
) -> Tensor:
    """One vector per image of the tokens of one or several blocks.

    Args:
        blocks: Tokens ``(B, T, D)`` of each block, the last block last; class token first.
        pooling: ``"cls"``, the class tokens of all blocks side by side; ``"mean"``, the mean of the
            last block's patch tokens; ``"cls_mean"``, the one after the other.
        num_prefix_tokens: Tokens before the patches: the class token and registers.

    Returns:
        ``(B, n D)``, ``(B, D)`` or ``(B, (n + 1) D)`` for n blocks.

    Raises:
        ValueError: If the pooling is unknown or there are no patch tokens to average.

    Example:
        >>> tokens = torch.tensor([[[1.0], [2.0], [4.0]]])
        >>> pool_tokens([tokens], "cls_mean").tolist()
        [[1.0, 3.0]]
    """
    check_pooling(pooling)
    parts = [] if pooling == "mean" else [tokens[:, 0] for tokens in blocks]
    if pooling != "cls":
        patches = blocks[-1][:, num_prefix_tokens:]
        if patches.shape[1] == 0:
            raise ValueError(
                f"`pooling={pooling!r}` needs tokens after the first {num_prefix_tokens}, got "
                f"{tuple(blocks[-1].shape)}."
            )
        parts.append(patches.mean(1))
    return torch.cat(parts, dim=1)


def check_pooling(pooling: str) -> None:
    """Refuse a pooling that is not known.

    Raises:
        ValueError: If it is unknown.
    """
    if pooling not in get_args(Pooling):
        raise ValueError(f"`pooling` must be one of {list(get_args(Pooling))}, got {pooling!r}.")
