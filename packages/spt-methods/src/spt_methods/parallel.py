"""FSDP2: how a module is sharded unless the user says."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from spt_losses import FeatureQueue, MemoryBank
from torch import Tensor, nn


def shard_children(module: nn.Module, device_mesh: Any) -> None:
    """Shard each child that has parameters by itself, over the mesh's data-parallel axis.

    Args:
        module: The LightningModule; its own direct parameters stay whole, see
            :func:`average_whole_parameters`.
        device_mesh: Lightning's mesh, with the axis ``data_parallel``.
    """
    from torch.distributed.fsdp import fully_shard

    mesh = device_mesh["data_parallel"]
    for child in module.children():
        if any(True for _ in child.parameters()):
            fully_shard(child, mesh=mesh)


def average_whole_parameters(module: nn.Module, device_mesh: Any) -> None:
    """Give each trainable parameter that is not sharded the mean of the ranks' gradients.

    Args:
        module: Whose parameters.
        device_mesh: Lightning's mesh, with the axis ``data_parallel``.
    """
    group = device_mesh["data_parallel"].get_group()

    def average(parameter: Tensor) -> None:
        assert parameter.grad is not None
        dist.all_reduce(parameter.grad, group=group)
        parameter.grad /= dist.get_world_size(group)

    for parameter in module.parameters():
        if parameter.requires_grad and not hasattr(parameter, "to_local"):
            parameter.register_post_accumulate_grad_hook(average)


def held_by_all_ranks(module: nn.Module) -> list[str]:
    """Names of the buffers of queues and banks, whose content is the same on all ranks as it is.

    DDP would send them, tens of megabytes, from rank 0 to the others before every forward pass.
    """
    banks = ((n, m) for n, m in module.named_modules() if isinstance(m, (FeatureQueue, MemoryBank)))
    return [f"{name}.{buffer}" for name, bank in banks for buffer, _ in bank.named_buffers()]
