"""What Lightning has logged so far in an epoch, which its own checkpoints leave out.

Without it the epoch means of a run that was stopped in mid-epoch cover the later batches alone.
"""

from __future__ import annotations

from typing import Any

import lightning as pl
import torch
from lightning.pytorch.trainer.connectors.logger_connector.result import (
    _Metadata,
    _ResultCollection,
    _ResultMetric,
    _Sync,
)
from torch import Tensor, nn

FIELDS = (
    "fx",
    "name",
    "prog_bar",
    "logger",
    "on_step",
    "on_epoch",
    "enable_graph",
    "add_dataloader_idx",
    "dataloader_idx",
    "metric_attribute",
)


def results_state(results: _ResultCollection, trainer: pl.Trainer) -> dict[str, Any]:
    """Running means, sums and extremes of the training steps logged in this epoch.

    Of a torchmetrics metric that was logged, the place where it is: its state is saved for itself.
    """
    places = {id(metric): path for path, metric in _metrics_of(trainer)}
    state: dict[str, Any] = {}
    for key, metric in results.items():
        if metric.has_reset or not (metric.is_tensor or id(metric.value) in places):
            continue
        meta = metric.meta
        state[key] = {
            "meta": {name: getattr(meta, name) for name in FIELDS},
            "reduce_fx": meta.reduce_fx.__name__,
            "sync": {"should": meta.sync.should, "rank_zero_only": meta.sync.rank_zero_only},
            "updates": metric._update_count,
            **(_held(metric) if metric.is_tensor else {"place": places[id(metric.value)]}),
        }
    return state


def _held(metric: _ResultMetric) -> dict[str, Any]:
    return {"value": metric.value.detach().clone(), "batch_size": _counted(metric)}


def restore_results(results: _ResultCollection, state: dict[str, Any], trainer: pl.Trainer) -> None:
    """Put them back before the first step logs again."""
    found = dict(_metrics_of(trainer))
    device = trainer.strategy.root_device
    for key, entry in state.items():
        if entry.get("place") not in (None, *found):
            continue
        meta = _Metadata(**entry["meta"], reduce_fx=entry["reduce_fx"])
        meta.sync = _sync(trainer, entry["sync"])
        metric = _ResultMetric(meta, is_tensor="place" not in entry)
        if metric.is_tensor:
            metric.value = entry["value"].to(device)
            if entry["batch_size"] is not None:
                metric.cumulated_batch_size = entry["batch_size"].to(device)
        else:
            metric.value = found[entry["place"]]
        metric._update_count = entry["updates"]
        results[key] = metric
    # the next batch is not the first of the epoch, which would clear the values
    trainer._logger_connector._first_loop_iter = False


def _counted(metric: _ResultMetric) -> Tensor | None:
    if not metric.meta.is_mean_reduction:
        return None
    return torch.as_tensor(metric.cumulated_batch_size).clone()


def _sync(trainer: pl.Trainer, state: dict[str, Any]) -> _Sync:
    return _Sync(
        fn=trainer.strategy.reduce, _should=state["should"], rank_zero_only=state["rank_zero_only"]
    )


def shown_metrics(trainer: pl.Trainer) -> dict[str, dict[str, Tensor]]:
    """What ``callback_metrics`` and its kin hold, for savers and schedules that monitor them."""
    connector = trainer._logger_connector
    return {
        name: {key: torch.as_tensor(value).detach().clone() for key, value in found.items()}
        for name, found in (
            ("callback", connector._callback_metrics),
            ("logged", connector._logged_metrics),
            ("bar", connector._progress_bar_metrics),
        )
    }


def restore_shown_metrics(trainer: pl.Trainer, state: dict[str, dict[str, Tensor]]) -> None:
    """Put them back."""
    connector = trainer._logger_connector
    device = trainer.strategy.root_device
    for name, target in (
        ("callback", connector._callback_metrics),
        ("logged", connector._logged_metrics),
        ("bar", connector._progress_bar_metrics),
    ):
        moved: dict[str, Any] = {key: value.to(device) for key, value in state[name].items()}
        target.update(moved)


def running_metrics(trainer: pl.Trainer) -> dict[str, Any]:
    """The states of torchmetrics metrics that have seen part of an epoch, by where they are."""
    state: dict[str, Any] = {}
    for path, metric in _metrics_of(trainer):
        if metric._update_count:
            values = {name: _copied(getattr(metric, name)) for name in metric._defaults}
            state[path] = {"updates": metric._update_count, "values": values}
    return state


def restore_running_metrics(trainer: pl.Trainer, state: dict[str, Any]) -> None:
    """Put them back into the metrics that are at the same places."""
    device = trainer.strategy.root_device
    for path, metric in _metrics_of(trainer):
        if path not in state:
            continue
        for name, value in state[path]["values"].items():
            setattr(metric, name, _moved(value, device))
        metric._update_count = state[path]["updates"]
        metric._computed = None


def _metrics_of(trainer: pl.Trainer) -> list[tuple[str, Any]]:
    owners: list[tuple[str, Any]] = [("module", trainer.lightning_module)]
    for entry in trainer.callbacks:  # type: ignore[attr-defined]
        owners += _modules_in(entry, entry.state_key, depth=3)
    return [
        (f"{path}.{name}", module)
        for path, owner in owners
        for name, module in owner.named_modules()
        if hasattr(module, "_defaults") and hasattr(module, "_update_count")
    ]


def _modules_in(value: Any, path: str, depth: int) -> list[tuple[str, nn.Module]]:
    """The modules among an object's attributes, in its lists and mappings too."""
    if isinstance(value, nn.Module):
        return [] if isinstance(value, pl.LightningModule) else [(path, value)]
    if depth == 0 or isinstance(value, (pl.Trainer, pl.LightningDataModule)):
        return []
    if isinstance(value, dict):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, (list, tuple)):
        items = [(str(i), item) for i, item in enumerate(value)]
    elif type(value).__module__.split(".")[0] in ("builtins", "torch", "pathlib"):
        return []
    else:
        items = list(getattr(value, "__dict__", {}).items())
    found = []
    for name, item in items:
        found += _modules_in(item, f"{path}.{name}", depth - 1)
    return found


def _copied(value: Any) -> Any:
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value.detach().clone() if isinstance(value, Tensor) else value


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, list):
        return [_moved(item, device) for item in value]
    return value.to(device) if isinstance(value, Tensor) else value
