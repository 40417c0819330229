"""Finding a batch's ``gpu_transform``: the data set's own, else the data module's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from spt_augment._random import drawing

STAGES = {"fit": "train", "train": "train", "validate": "val", "sanity_check": "val",
          "test": "test", "predict": "predict"}  # fmt: skip
SPELLINGS = {
    "train": ("train", "fit"),
    "val": ("val", "validate"),
    "test": ("test",),
    "predict": ("predict",),
}


def apply_gpu_transform(pl_module: Any, batch: Any, dataloader_idx: int = 0) -> Any:
    """Apply the transform that belongs to the data of the running loader, if there is one.

    To be called in ``on_after_batch_transfer``. Random numbers are keyed by the run's seed,
    the rank, the stage and the batch, so ranks differ and a resumed run repeats.

    Args:
        pl_module: A LightningModule attached to a Trainer.
        batch: The collated batch, on the device.
        dataloader_idx: Which of several loaders it came from.

    Returns:
        The transformed batch, or the batch itself.

    Raises:
        TypeError: If what is found is not callable.
        ValueError: If a data module's mapping has a key that is no stage.
    """
    trainer = getattr(pl_module, "_trainer", None)
    if trainer is None:
        return batch
    stage = STAGES[str(trainer.state.stage.value)]
    transform = find_gpu_transform(trainer, stage, dataloader_idx)
    if transform is None:
        return batch
    if isinstance(transform, nn.Module):
        transform.to(pl_module.device)
    key = (torch.initial_seed(), trainer.global_rank, stage, dataloader_idx)
    with drawing(*key, _batches_so_far(trainer, stage)):
        return transform(batch)


def find_gpu_transform(
    trainer: Any, stage: str, dataloader_idx: int = 0
) -> Callable[[Any], Any] | None:
    """The transform for a stage: of the loader's data set, else of the data module.

    Args:
        trainer: A Lightning Trainer.
        stage: ``"train"``, ``"val"``, ``"test"`` or ``"predict"``.
        dataloader_idx: Which of several loaders.
    """
    for dataset in _datasets(_loader(trainer, stage, dataloader_idx)):
        own = getattr(dataset, "gpu_transform", None)
        if own is not None:
            return _callable(own, type(dataset).__name__)
    found = getattr(getattr(trainer, "datamodule", None), "gpu_transform", None)
    if isinstance(found, Mapping):
        known = [word for words in SPELLINGS.values() for word in words]
        unknown = sorted(set(found) - set(known))
        if unknown:
            raise ValueError(
                f"The data module's `gpu_transform` has the keys {unknown}; a key must be one of "
                f"{known}."
            )
        found = next((found[word] for word in SPELLINGS[stage] if word in found), None)
    return None if found is None else _callable(found, "the data module")


def reject_module_gpu_transform(pl_module: Any) -> None:
    """Refuse a ``gpu_transform`` on the module: it belongs to the data.

    Raises:
        RuntimeError: If the module has one.
    """
    if getattr(pl_module, "gpu_transform", None) is not None:
        raise RuntimeError(
            f"{type(pl_module).__name__} has a `gpu_transform`; it belongs to the data. Give it to "
            "the data set, or to the data module."
        )


class GPUTransformMixin:
    """Gives any LightningModule the data's ``gpu_transform``; list it before the base class."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Transform the batch on the device."""
        return apply_gpu_transform(self, batch, dataloader_idx)

    def on_train_start(self) -> None:
        """Refuse a transform on the module."""
        reject_module_gpu_transform(self)
        parent = getattr(super(), "on_train_start", None)
        if parent is not None:
            parent()


def _callable(transform: Any, owner: str) -> Callable[[Any], Any]:
    if not callable(transform):
        raise TypeError(
            f"The `gpu_transform` of {owner} must be callable, got {type(transform).__name__}."
        )
    return transform


def _loader(trainer: Any, stage: str, index: int) -> Any:
    """The loader a batch came from, or all of them when a combined loader mixes them."""
    combined = {
        "train": lambda: trainer.fit_loop._combined_loader,
        "val": lambda: _val_loop(trainer)._combined_loader,
        "test": lambda: trainer.test_loop._combined_loader,
        "predict": lambda: trainer.predict_loop._combined_loader,
    }[stage]()
    if combined is None:
        return None
    flat = combined.flattened
    return flat if stage == "train" else flat[index : index + 1]


def _val_loop(trainer: Any) -> Any:
    fitting = trainer.state.fn.value == "fit"
    return trainer.fit_loop.epoch_loop.val_loop if fitting else trainer.validate_loop


def _datasets(loader: Any) -> Iterator[Any]:
    """The data sets below loaders, from the outside in."""
    pending = list(loader) if isinstance(loader, (list, tuple)) else [loader]
    while pending:
        item = pending.pop(0)
        if item is None:
            continue
        yield item
        inner = getattr(item, "dataset", None)
        pending += [inner] if inner is not None else []
        pending += list(getattr(item, "datasets", []) or [])


def _batches_so_far(trainer: Any, stage: str) -> int:
    if stage == "train":
        return int(trainer.fit_loop.epoch_loop.total_batch_idx)
    loop = {"val": _val_loop(trainer), "test": trainer.test_loop, "predict": trainer.predict_loop}
    progress = getattr(loop[stage], "batch_progress", None)
    return int(progress.current.ready) if progress is not None else 0
