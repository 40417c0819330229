"""Finding a batch's ``gpu_transform``: the data set's own, else the data module's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    found = _found(_loaders(trainer, stage, dataloader_idx), batch, trainer, stage)
    if found is None:
        return batch
    key = (torch.initial_seed(), trainer.global_rank, stage, dataloader_idx)
    with drawing(*key, _batches_so_far(trainer, stage)):
        return _apply(found, batch, pl_module.device)


def _found(loaders: Any, batch: Any, trainer: Any, stage: str) -> Any:
    """The transform of each part of a batch that several loaders filled; ``None`` if there is none."""
    if isinstance(loaders, Mapping) and isinstance(batch, Mapping):
        named = {k: _found(loaders[k], part, trainer, stage) for k, part in batch.items()}
        return None if all(one is None for one in named.values()) else named
    if isinstance(loaders, (list, tuple)) and isinstance(batch, (list, tuple)):
        pairs = zip(loaders, batch, strict=True)
        listed = [_found(loader, part, trainer, stage) for loader, part in pairs]
        return None if all(one is None for one in listed) else listed
    transform = find_gpu_transform(trainer, stage, loaders)
    return None if batch is None else transform


def _apply(found: Any, batch: Any, device: torch.device) -> Any:
    """Apply what was found to its part of the batch."""
    if found is None:
        return batch
    if isinstance(found, dict):
        return {k: _apply(found[k], part, device) for k, part in batch.items()}
    if isinstance(found, list):
        parts = zip(found, batch, strict=True)
        return type(batch)([_apply(one, part, device) for one, part in parts])
    if isinstance(found, nn.Module):
        found.to(device)
    return found(batch)


def find_gpu_transform(trainer: Any, stage: str, loader: Any) -> Callable[[Any], Any] | None:
    """The transform for a loader: of its data set, else of the data module.

    Args:
        trainer: A Lightning Trainer.
        stage: ``"train"``, ``"val"``, ``"test"`` or ``"predict"``.
        loader: The loader that the batch came from. Its data set is looked into (a subset's, or
            those of a concatenation); the outermost transform counts.

    Raises:
        TypeError: If what is found is not callable.
        ValueError: If joined data sets have different transforms, or a data module's mapping has
            a key that is no stage.
    """
    own = _own(loader)
    if own is not None:
        return own
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


def _loaders(trainer: Any, stage: str, index: int) -> Any:
    """The loader a batch came from; in training all of them, as they were given."""
    combined = {
        "train": lambda: trainer.fit_loop._combined_loader,
        "val": lambda: _val_loop(trainer)._combined_loader,
        "test": lambda: trainer.test_loop._combined_loader,
        "predict": lambda: trainer.predict_loop._combined_loader,
    }[stage]()
    if combined is None:
        return None
    return combined.iterables if stage == "train" else combined.flattened[index]


def _val_loop(trainer: Any) -> Any:
    fitting = trainer.state.fn.value == "fit"
    return trainer.fit_loop.epoch_loop.val_loop if fitting else trainer.validate_loop


def _own(item: Any) -> Callable[[Any], Any] | None:
    """The transform of a loader, of loaders, or of the data sets below, from the outside in."""
    if isinstance(item, Mapping):
        return _shared(list(item.values()))
    if isinstance(item, (list, tuple)):
        return _shared(item)
    return _of_dataset(item)


def _of_dataset(item: Any) -> Callable[[Any], Any] | None:
    """The same of one loader or data set; samples are not looked into, however they are held."""
    own = getattr(item, "gpu_transform", None)
    if own is not None:
        return _callable(own, type(item).__name__)
    joined = getattr(item, "datasets", None)
    if isinstance(joined, (list, tuple)) and joined:
        return _shared(joined)
    inner = getattr(item, "dataset", None)
    return None if inner is None else _of_dataset(inner)


def _shared(parts: Sequence[Any]) -> Callable[[Any], Any] | None:
    """The one transform of joined loaders or data sets."""
    found = [_of_dataset(part) for part in parts]
    if len({id(transform) for transform in found}) > 1:
        names = sorted({type(part).__name__ for part in parts})
        raise ValueError(
            f"Joined data sets ({', '.join(names)}) have different `gpu_transform`s, "
            f"{sum(t is None for t in found)} of {len(found)} none, and a batch mixes their samples. "
            "Give one to the data set that joins them, or to the data module."
        )
    return found[0] if found else None


def _batches_so_far(trainer: Any, stage: str) -> int:
    if stage == "train":
        return int(trainer.fit_loop.epoch_loop.total_batch_idx)
    loop = {"val": _val_loop(trainer), "test": trainer.test_loop, "predict": trainer.predict_loop}
    progress = getattr(loop[stage], "batch_progress", None)
    return int(progress.current.ready) if progress is not None else 0
