"""FSDP2: how a module is sharded unless the user says."""

from __future__ import annotations

from typing import Any

from torch import nn


def shard_children(module: nn.Module, device_mesh: Any) -> None:
    """Shard each child that has parameters by itself, over the mesh's data-parallel axis.

    Args:
        module: The LightningModule; its own direct parameters stay whole.
        device_mesh: Lightning's mesh, with the axis ``data_parallel``.
    """
    from torch.distributed.fsdp import fully_shard

    mesh = device_mesh["data_parallel"]
    for child in module.children():
        if any(True for _ in child.parameters()):
            fully_shard(child, mesh=mesh)
