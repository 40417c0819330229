"""Fully sharded data parallelism (FSDP2): a strategy whose ranks all share the parameters.

Zhao et al., 2023, "PyTorch FSDP"; ``torch.distributed.fsdp.fully_shard`` shards each parameter as a
DTensor. https://arxiv.org/abs/2304.11277
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Any, Literal

import lightning as pl
import torch.distributed as dist
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities.model_helpers import is_overridden
from loguru import logger
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

Parallelize = Callable[[nn.Module, DeviceMesh], object]
Size = int | Literal["auto"]


class FSDP2Strategy(ModelParallelStrategy):
    """Shard the parameters over all ranks, unless told to split tensors too.

    A module that does not override ``configure_model`` is sharded by ``parallelize``.

    Args:
        parallelize: Shards a module in place, given the device mesh.
        data_parallel_size: Ranks that share the parameters; all of them by default.
        tensor_parallel_size: Ranks that split each tensor; 1 by default.
        **kwargs: Further arguments of Lightning's ``ModelParallelStrategy``.
    """

    averages_whole_parameters = True

    def __init__(
        self,
        parallelize: Parallelize,
        data_parallel_size: Size = "auto",
        tensor_parallel_size: Size = "auto",
        **kwargs: Any,
    ) -> None:
        split = 1 if tensor_parallel_size == "auto" else tensor_parallel_size
        super().__init__(data_parallel_size, split, **kwargs)
        self.parallelize = parallelize
        self._averaged: set[Tensor] = set()

    def setup_environment(self) -> None:
        """Meet the other ranks and lay the mesh over them."""
        if self._data_parallel_size == "auto":
            self._data_parallel_size = self.world_size // int(self._tensor_parallel_size)
        super().setup_environment()
        module: Any = self.lightning_module
        if not is_overridden("configure_model", module):
            module.configure_model = self._configurer(module)

    def setup(self, trainer: pl.Trainer) -> None:
        """Set up the model; what is not sharded gets the same gradient on all ranks."""
        super().setup(trainer)
        assert self.model is not None
        for parameter in self.model.parameters():
            whole = parameter.requires_grad and not isinstance(parameter, DTensor)
            if whole and parameter not in self._averaged:
                parameter.register_post_accumulate_grad_hook(self._average)
                self._averaged.add(parameter)

    def _average(self, parameter: Tensor) -> None:
        group = self.device_mesh["data_parallel"].get_group()
        assert parameter.grad is not None
        dist.all_reduce(parameter.grad, group=group)
        parameter.grad /= dist.get_world_size(group)

    def _configurer(self, module: pl.LightningModule) -> Callable[[], None]:
        def configure_model() -> None:
            self.parallelize(module, self.device_mesh)

        return configure_model


def make_fsdp2_strategy(
    *,
    parallelize: Parallelize | None = None,
    mp_policy: Any = None,
    data_parallel_size: Size = "auto",
    tensor_parallel_size: Size = "auto",
    **kwargs: Any,
) -> FSDP2Strategy:
    """A strategy for ``Trainer(strategy=...)``.

    Checkpoints are folders with one file per rank; under SLURM, use one task per GPU.

    Args:
        parallelize: Shards a module in place; :func:`shard` by default.
        mp_policy: A ``torch.distributed.fsdp.MixedPrecisionPolicy`` for :func:`shard`.
        data_parallel_size: Ranks that share the parameters; all of them by default.
        tensor_parallel_size: Ranks that split each tensor; 1 by default.
        **kwargs: Further arguments of Lightning's ``ModelParallelStrategy``.
    """

    def by_default(module: nn.Module, mesh: DeviceMesh) -> None:
        shard(module, mesh, mp_policy=mp_policy)

    return FSDP2Strategy(
        parallelize or by_default, data_parallel_size, tensor_parallel_size, **kwargs
    )


def shard(module: nn.Module, mesh: DeviceMesh, *, mp_policy: Any = None) -> None:
    """Shard a module over the mesh's ``data_parallel`` ranks: blocks first, then their owners.

    Elements of ``ModuleList`` and ``Sequential`` are blocks, gathered one at a time. A child with a
    method ``fsdp_setup(mesh, mp_policy)`` does it itself. Parameters directly on the module stay
    whole: a LightningModule's step is not its ``forward``, which would gather them. A module that is
    sharded stays as it is.

    Args:
        module: Sharded in place.
        mesh: With a dimension ``data_parallel``.
        mp_policy: A ``torch.distributed.fsdp.MixedPrecisionPolicy``.
    """
    from torch.distributed.fsdp import fully_shard

    if any(isinstance(p, DTensor) for p in module.parameters()):
        return
    if next(module.parameters(), None) is None:
        logger.warning(f"{type(module).__name__} has no parameters; there is nothing to shard.")
        return
    options: dict[str, Any] = {"mesh": mesh["data_parallel"]}
    if mp_policy is not None:
        options["mp_policy"] = mp_policy
    for child in module.children():
        own: Any = getattr(child, "fsdp_setup", None)
        if own is not None:
            own(mesh, mp_policy)
            continue
        for block in _blocks(child):
            fully_shard(block, **options)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The parts to gather one at a time, deepest first, the module itself last."""
    for child in module.children():
        yield from (part for part in _blocks(child) if part is not child or _is_list(module))
    if next(module.parameters(), None) is not None and not isinstance(module, nn.ModuleList):
        yield module


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, (nn.ModuleList, nn.Sequential))


def is_fsdp_strategy(strategy: Any) -> bool:
    """Whether a strategy shards parameters, by either FSDP."""
    names = {kind.__name__ for kind in type(strategy).__mro__}
    return bool(names & {"FSDPStrategy", "ModelParallelStrategy"})


def describe_fsdp_strategy(strategy: FSDP2Strategy) -> dict[str, Any]:
    """Sizes of a strategy and the form of its checkpoints."""
    return {
        "strategy": type(strategy).__name__,
        "data_parallel_size": strategy._data_parallel_size,
        "tensor_parallel_size": strategy._tensor_parallel_size,
        "save_distributed_checkpoint": strategy._save_distributed_checkpoint,
    }


def assert_aligned_wrapping(student: nn.Module, teacher: nn.Module) -> None:
    """Refuse a teacher that is not sharded as its student is: their average would mix them up.

    Raises:
        RuntimeError: With the first parameter or buffer that differs.
    """

    def parts(module: nn.Module) -> Iterator[tuple[str, Any]]:
        yield from module.named_parameters()
        yield from module.named_buffers()

    for one, other in zip_longest(parts(student), parts(teacher)):
        if one is None or other is None:
            raise RuntimeError(f"Only one of student and teacher has {(one or other)[0]!r}.")
        if _form(one[1]) != _form(other[1]):
            raise RuntimeError(
                f"{one[0]!r} of the student is {_form(one[1])}, {other[0]!r} of the teacher is "
                f"{_form(other[1])}; shard both alike."
            )


def _form(tensor: Any) -> tuple[Any, ...]:
    placed = (tensor.placements, tensor.device_mesh) if isinstance(tensor, DTensor) else ()
    return (tuple(tensor.shape), tensor.dtype, *placed)
