"""Layer-wise learning-rate decay for fine-tuning vision transformers.

Clark et al., ELECTRA, 2020 (https://arxiv.org/abs/2003.10555); as in the official code of BEiT and
MAE (``util/lr_decay.py``).
"""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from spt_optim.param_groups import undecayed_names

BLOCK = re.compile(r"(?:^|\.)(?:blocks|layers?)\.(\d+)\.")
EMBEDDING = re.compile(
    r"(?:^|\.)(?:cls_token|dist_token|reg_token|mask_token|register_tokens|storage_tokens"
    r"|pos_embed|patch_embed)"
)


def layer_decay_groups(
    module: nn.Module,
    lr: float,
    layer_decay: float,
    weight_decay: float,
    *,
    n_layers: int | None = None,
    patch_embed_factor: float = 1.0,
) -> list[dict[str, Any]]:
    """Parameter groups whose rate shrinks by ``layer_decay`` per layer below the head.

    The embeddings are layer 0, block ``i`` is layer ``i + 1``, and everything else (head, last norm)
    is the last layer, with the full rate. Biases, norms and what the module's
    ``no_weight_decay()`` names take no weight decay; frozen parameters are left out.

    Args:
        module: A transformer with ``blocks.{i}`` or ``layers.{i}``, as timm's.
        lr: Rate of the last layer.
        layer_decay: Factor per layer, in (0, 1].
        weight_decay: Decay of the decayed parameters, at least 0.
        n_layers: Number of blocks; counted if not given.
        patch_embed_factor: Further factor for the patch embedding (0.2 in DINOv2 and DINOv3).

    Returns:
        Groups with ``params``, ``lr``, ``weight_decay``, ``layer`` and ``names``.

    Raises:
        ValueError: If ``layer_decay`` is out of range or the module has no blocks.
    """
    if not 0 < layer_decay <= 1:
        raise ValueError(f"`layer_decay` must be in (0, 1], got {layer_decay}.")
    if n_layers is None:
        names = [name for name, _ in module.named_parameters()]
        found = [int(match[1]) for match in map(BLOCK.search, names) if match]
        if not found:
            raise ValueError(
                f"{type(module).__name__} has no parameter under blocks.<i> or layers.<i>; layer-wise "
                "decay is for transformers."
            )
        n_layers = max(found) + 1
    free = undecayed_names(module)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, p in module.named_parameters():
        if not p.requires_grad:
            continue
        layer = layer_of(name, n_layers)
        factor = layer_decay ** (n_layers + 1 - layer)
        factor *= patch_embed_factor if "patch_embed" in name else 1.0
        decay = 0.0 if name in free else weight_decay
        new = {"params": [], "names": [], "lr": lr * factor, "weight_decay": decay, "layer": layer}
        group = groups.setdefault((factor, decay), new)
        group["params"].append(p)
        group["names"].append(name)
    return list(groups.values())


def layer_of(name: str, n_layers: int) -> int:
    """The layer of a parameter: 0 for embeddings, ``i + 1`` for block ``i``, else the last.

    Example:
        >>> [layer_of(name, 12) for name in ("patch_embed.proj.weight", "blocks.3.norm1.bias", "head.bias")]
        [0, 4, 13]
    """
    match = BLOCK.search(name)
    if match:
        return int(match[1]) + 1
    return 0 if EMBEDDING.search(name) else n_layers + 1
