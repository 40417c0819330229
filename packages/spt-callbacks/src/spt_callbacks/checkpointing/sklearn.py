"""Carry a module's scikit-learn estimators in its checkpoints."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import lightning as pl
import torch
from loguru import logger
from torch import Tensor

KEY = "spt_callbacks.sklearn"


class SklearnCheckpoint(pl.Callback):
    """Save the estimators among a module's public attributes, and put them back on resume.

    Estimators in lists and dicts (nested ones too) are found. They are stored as bytes in the
    format of skops under one key of the checkpoint, which still loads with ``weights_only=True``.
    Loading runs no code of the file: skops builds scikit-learn's own types and refuses others.
    Needs ``pip install "spt-callbacks[sklearn]"``.

    Args:
        trusted: Full names of further types to build, such as ``"my_project.MyEstimator"``; see
            ``skops.io.get_untrusted_types``. Trust them only if you trust the checkpoint's author.

    Raises:
        ImportError: At the first save or load that needs it, if skops is missing.
        skops.io.exceptions.UntrustedTypesFoundException: On resume, for types not trusted.
    """

    def __init__(self, trusted: Sequence[str] = ()) -> None:
        self.trusted = list(trusted)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the estimators."""
        found = dict(estimators_of(pl_module))
        if not found:
            return
        io = _skops_io()
        checkpoint[KEY] = {path: _to_tensor(io.dumps(model)) for path, model in found.items()}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the estimators back where they were."""
        stored: dict[str, Tensor] = checkpoint.get(KEY, {})
        for path, data in stored.items():
            model = _skops_io().loads(data.numpy().tobytes(), trusted=self.trusted)
            if not _put(pl_module, path, model):
                logger.warning(
                    f"SklearnCheckpoint: the checkpoint holds an estimator at {path!r}, a place "
                    f"that {type(pl_module).__name__} does not have; it was left out."
                )


def estimators_of(module: pl.LightningModule) -> Iterator[tuple[str, Any]]:
    """The estimators among a module's public attributes, with their places."""
    base = sys.modules.get("sklearn.base")
    if base is None:  # then no estimator can exist
        return
    for name, value in vars(module).items():
        if not name.startswith("_"):
            yield from _walk(name, value, base.BaseEstimator)


def _walk(path: str, value: Any, kind: type) -> Iterator[tuple[str, Any]]:
    if isinstance(value, kind):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, str):
                yield from _walk(f"{path}/{key}", item, kind)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _walk(f"{path}/{place}", item, kind)


def _put(module: pl.LightningModule, path: str, model: Any) -> bool:
    """Set the place named by a path; whether it exists."""
    first, *rest = path.split("/")
    if first.startswith("_") or first not in vars(module):
        return False
    if not rest:
        setattr(module, first, model)
        return True
    holder = vars(module)[first]
    for step in rest[:-1]:
        holder = _item(holder, step)
    if isinstance(holder, list) and int(rest[-1]) < len(holder):
        holder[int(rest[-1])] = model
        return True
    if isinstance(holder, dict):
        holder[rest[-1]] = model
        return True
    return False


def _item(holder: Any, step: str) -> Any:
    if isinstance(holder, list):
        return holder[int(step)] if int(step) < len(holder) else None
    return holder.get(step) if isinstance(holder, dict) else None


def _to_tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _skops_io() -> Any:
    try:
        import skops.io
    except ImportError as error:
        raise ImportError(
            'SklearnCheckpoint needs skops: pip install "spt-callbacks[sklearn]".'
        ) from error
    return skops.io
