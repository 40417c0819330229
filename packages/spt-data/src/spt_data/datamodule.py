"""The loaders of a run as one Lightning data module."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import lightning as pl
import torch
from loguru import logger
from torchdata.stateful_dataloader import StatefulDataLoader

from spt_data._instantiate import instantiate
from spt_data.loader import Loader

SPLITS = ("train", "val", "test", "predict")
NEEDED = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("predict",),
}
OPTIONS = (*tuple(inspect.signature(StatefulDataLoader.__init__).parameters)[1:], "seed")

Split = Any  # a loader, a mapping, a list of them, or None


class DataModule(pl.LightningDataModule):
    """Loaders for training, validation, testing and prediction; each split stands alone.

    Args:
        train: A loader, used as it is; or a mapping of ``DataLoader`` arguments whose ``dataset``
            is a dataset or a mapping with ``_target_``, which becomes a resumable
            ``StatefulDataLoader`` and whose augmentation is keyed by sample and epoch (``seed``
            may be given); or a list of such.
        test: The same.
        val: The same.
        predict: The same.
        **kwargs: Kept as attributes, such as ``gpu_transform`` (a callable, or a mapping of
            stages to callables).

    Raises:
        KeyError: If a mapping has no ``dataset``.
        TypeError: If a split is neither a loader nor a mapping.
        ValueError: If no split is given, or a mapping has a key that ``DataLoader`` does not
            take.
    """

    def __init__(
        self,
        train: Split = None,
        test: Split = None,
        val: Split = None,
        predict: Split = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        given = {"train": train, "val": val, "test": test, "predict": predict}
        if all(split is None for split in given.values()):
            raise ValueError(
                "DataModule needs at least one of `train`, `val`, `test` and `predict`; give a "
                "DataLoader or a mapping of its arguments."
            )
        for name, split in given.items():
            for part in split if isinstance(split, (list, tuple)) else [split]:
                _check_split(name, part)
        if train is None or val is None:
            missing = [name for name in ("train", "val") if given[name] is None]
            logger.debug(f"DataModule has no {' and no '.join(missing)} loader.")
        self.given = given
        self.loaders: dict[str, Any] = {}
        self._pl_trainer: Any = None
        self._pending: dict[str, Any] = {}
        for name, value in kwargs.items():
            setattr(self, name, value)

    def setup(self, stage: str) -> None:
        """Build the loaders of a stage.

        Raises:
            ValueError: If the stage is not ``fit``, ``validate``, ``test`` or ``predict``, or
                its loader was not given.
        """
        if stage not in NEEDED:
            raise ValueError(f"`stage` must be one of {sorted(NEEDED)}, got {stage!r}.")
        if self.given[NEEDED[stage][0]] is None:
            have = [name for name in SPLITS if self.given[name] is not None]
            raise ValueError(f"Stage {stage!r} needs `{NEEDED[stage][0]}`; DataModule has {have}.")
        for name in NEEDED[stage]:
            if name not in self.loaders and self.given[name] is not None:
                self._store(name)
                _tell(name, self.loaders[name])

    def state_dict(self) -> dict[str, Any]:
        """Position and epoch of the training loader, when it was built from a mapping."""
        loader = self.loaders.get("train")
        return {"train": loader.state_dict()} if isinstance(loader, Loader) else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there, now or when the loader is built."""
        self._pending = dict(state_dict)
        loader = self.loaders.get("train")
        if isinstance(loader, Loader) and "train" in self._pending:
            loader.load_state_dict(self._pending.pop("train"))

    def set_pl_trainer(self, trainer: Any) -> None:
        """Put the step and the epoch of a Trainer into every sample, from the next request of a loader on.

        Each dataset with ``set_pl_trainer`` gets it.
        """
        self._pl_trainer = trainer

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Bring the step and epoch in a batch up to date, which workers read ahead of time."""
        if self._pl_trainer is None:
            return batch
        for dataset in self._datasets():
            if hasattr(dataset, "tell_progress"):
                dataset.tell_progress()
        step, epoch = self._pl_trainer.global_step, self._pl_trainer.current_epoch
        return stamped(batch, {"global_step": step, "current_epoch": epoch})

    def _datasets(self) -> list[Any]:
        loaders = [
            loader
            for built in self.loaders.values()
            for loader in (built if isinstance(built, list) else [built])
        ]
        return [loader.dataset for loader in loaders if hasattr(loader, "dataset")]

    def _store(self, name: str) -> None:
        loader = self.loaders[name] = _build(self.given[name])
        if isinstance(loader, Loader) and name in self._pending:
            loader.load_state_dict(self._pending.pop(name))

    def train_dataloader(self) -> Any:
        """The training loader; its state follows the Trainer."""
        loader = self._loader("train")
        if isinstance(loader, Loader) and self.trainer is not None:
            loader.follow(self.trainer)
        return loader

    def val_dataloader(self) -> Any:
        """The validation loader; an empty list without one."""
        return self._loader("val")

    def test_dataloader(self) -> Any:
        """The test loader."""
        return self._loader("test")

    def predict_dataloader(self) -> Any:
        """The prediction loader."""
        return self._loader("predict")

    def _loader(self, name: str) -> Any:
        if self.given[name] is None:
            return []
        if name not in self.loaders:
            self._store(name)
        if self._pl_trainer is not None:
            for dataset in self._datasets():
                if hasattr(dataset, "set_pl_trainer"):
                    dataset.set_pl_trainer(self._pl_trainer)
        return self.loaders[name]


def stamped(batch: Any, values: Mapping[str, int]) -> Any:
    """A batch whose views have these numbers instead of the ones they carry.

    Example:
        >>> import torch
        >>> stamped({"views": [{"global_step": torch.tensor([3, 3])}]}, {"global_step": 4})
        {'views': [{'global_step': tensor([4, 4])}]}
    """
    if isinstance(batch, list):
        return [stamped(item, values) for item in batch]
    if not isinstance(batch, dict):
        return batch
    return {
        key: torch.full_like(item, values[key])
        if key in values and isinstance(item, torch.Tensor)
        else stamped(item, values)
        for key, item in batch.items()
    }


def _tell(name: str, loader: Any) -> None:
    """Log the length and the columns of a split."""
    for part in loader if isinstance(loader, list) else [loader]:
        dataset: Any = getattr(part, "dataset", None)
        rows = f"{len(dataset)} rows" if hasattr(dataset, "__len__") else "a stream"
        columns = getattr(dataset, "column_names", None)
        logger.info(f"Split {name!r}: {rows}" + (f", columns {columns}" if columns else ""))


def _check_split(name: str, split: Any) -> None:
    if split is None or not isinstance(split, Mapping):
        if split is not None and not hasattr(split, "__iter__"):
            raise TypeError(
                f"`{name}` must be a DataLoader or a mapping of its arguments, got "
                f"{type(split).__name__}."
            )
        return
    if "_target_" in split:
        return
    if "dataset" not in split:
        raise KeyError(f"`{name}` needs the key 'dataset'; it has {sorted(split)}.")
    unknown = sorted(set(split) - set(OPTIONS))
    if unknown:
        raise ValueError(f"`{name}` has {unknown}, which DataLoader does not take: {OPTIONS}.")


def _build(split: Split) -> Any:
    if isinstance(split, (list, tuple)):
        return [_build(part) for part in split]
    if not isinstance(split, Mapping):
        return split
    options = instantiate(split)
    if not isinstance(options, dict):
        return options
    dataset = options["dataset"]
    options = {
        key: value(dataset) if isinstance(value, functools.partial) else value
        for key, value in options.items()
    }
    if options.get("num_workers", 0) > 0:
        options.setdefault("persistent_workers", True)
        options.setdefault("pin_memory", torch.cuda.is_available())
    return Loader(**options)
