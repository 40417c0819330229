"""The loaders of a run as one Lightning data module."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Mapping
from typing import Any

import lightning as pl
import torch
from loguru import logger
from torch.utils.data import IterableDataset
from torchdata.stateful_dataloader import StatefulDataLoader

from spt_data._instantiate import instantiate
from spt_data._ranks import rank_and_world
from spt_data.loader import Loader
from spt_data.samplers import ShareSampler

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
            may be given); or a list of such. On several ranks, each gets its share of the rows.
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
        self._worlds: dict[str, int] = {}  # ranks that a split was shared out among
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
            if self.given[name] is not None and not self._is_built(name):
                self._store(name)
                _tell(name, self.loaders[name])

    def _is_built(self, name: str) -> bool:
        """Whether a split has its loaders, shared out among as many ranks as there are now."""
        return name in self.loaders and self._worlds[name] == self._share()["num_replicas"]

    def _share(self) -> dict[str, int]:
        """The place of this process among those that take different rows."""
        given = getattr(self.trainer, "distributed_sampler_kwargs", None)  # fewer than all ranks,
        if given:  # when some hold parts of one model
            return {"rank": given["rank"], "num_replicas": given["num_replicas"]}
        return dict(zip(("rank", "num_replicas"), rank_and_world(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Position and epoch of the training loader, or of each, built from a mapping."""
        loaders = self._running()
        states = [
            part.state_dict() if isinstance(part, Loader) else None for part in _parts(loaders)
        ]
        if not any(states):
            return {}
        return {"train": states if isinstance(loaders, list) else states[0]}

    def _running(self) -> Any:
        """The training loaders; the Trainer's, when it has put another sampler into them."""
        own = self.loaders.get("train")
        running = getattr(self.trainer, "train_dataloader", None)
        rebuilt = isinstance(own, Loader) and isinstance(running, Loader)
        return running if rebuilt else own

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there, now or when the loader is built.

        Raises:
            ValueError: If it is the state of another number of training loaders.
        """
        self._pending = dict(state_dict)
        if "train" in self.loaders:
            self._resume("train")

    def _resume(self, name: str) -> None:
        if name not in self._pending:
            return
        state, loaders = self._pending.pop(name), _parts(self.loaders[name])
        states = state if isinstance(state, list) else [state]
        if len(states) != len(loaders):
            raise ValueError(
                f"The state is of {len(states)} {name} loaders, and there are {len(loaders)}; "
                "resume with as many, or begin without the state."
            )
        for loader, part in zip(loaders, states, strict=True):
            if isinstance(loader, Loader) and part is not None:
                loader.load_state_dict(part)

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
        loaders = [loader for built in self.loaders.values() for loader in _parts(built)]
        return [loader.dataset for loader in loaders if hasattr(loader, "dataset")]

    def _store(self, name: str) -> None:
        share = self._share()
        # Lightning itself shares out predictions: it has to know their rows
        self.loaders[name] = _build(self.given[name], share if name != "predict" else None)
        self._worlds[name] = share["num_replicas"]
        self._resume(name)

    def train_dataloader(self) -> Any:
        """The training loader; its state follows the Trainer."""
        loaders = self._loader("train")
        for loader in _parts(loaders):
            if isinstance(loader, Loader) and self.trainer is not None:
                loader.follow(self.trainer)
        return loaders

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
        if not self._is_built(name):
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


def _parts(loaders: Any) -> list[Any]:
    """The loaders of a split."""
    return loaders if isinstance(loaders, list) else [loaders]


def _tell(name: str, loader: Any) -> None:
    """Log the length and the columns of a split."""
    for part in _parts(loader):
        dataset: Any = getattr(part, "dataset", None)
        try:
            rows = f"{len(dataset)} rows"
        except TypeError:  # also of a stream that has `__len__` for those that know it
            rows = "a stream"
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


def _build(split: Split, share: dict[str, int] | None) -> Any:
    if isinstance(split, (list, tuple)):
        return [_build(part, share) for part in split]
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
    if share is not None and share["num_replicas"] > 1:
        _share_out(options, share)
    return Loader(**options)


def _share_out(options: dict[str, Any], share: dict[str, int]) -> None:
    """Give a loader without a sampler the rows of this rank.

    Lightning would build the loader anew, whose position nobody could ask for, and let the rank's
    own generator shuffle.
    """
    dataset = options["dataset"]
    if isinstance(dataset, IterableDataset) or options.get("batch_size", 1) is None:
        return
    if options.get("sampler") is None and options.get("batch_sampler") is None and len(dataset):
        seed = options.get("seed")
        seed = int(os.getenv("PL_GLOBAL_SEED", "0")) if seed is None else seed
        shuffle = bool(options.pop("shuffle", False))
        options["sampler"] = ShareSampler(len(dataset), shuffle, seed, **share)
