"""Helpers for those who write a callback of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lightning.fabric.utilities.apply_func import apply_to_collection  # type: ignore[attr-defined]
from torch import Tensor, nn

from spt_callbacks.keys import Key, find
from spt_callbacks.metrics import named_metrics
from spt_callbacks.training.trainable import TrainableCallback as TrainableCallback

STAGES = {"train", "val"}


def get_data_from_batch_or_outputs(
    key: Key | Iterable[Key], batch: Any, outputs: Any = None, caller_name: str = "Callback"
) -> Any:
    """The value under a key, sought in the outputs of the step and then in the batch.

    Args:
        key: A key, dots descend; a function of (outputs, batch); or several of them.
        batch: What the loader gave.
        outputs: What the step returned.
        caller_name: Who asks, for messages.

    Returns:
        The value, or a list of them for several keys. Tensors keep their graph.

    Raises:
        MissingKeyError: If a key is in neither; it names the keys that are there.

    Example:
        >>> get_data_from_batch_or_outputs("label", {"label": 3}, {"loss": 0.5})
        3
    """
    if isinstance(key, str) or callable(key):
        return find(key, outputs, batch, caller_name)
    return [find(one, outputs, batch, caller_name) for one in key]


def detach_tensors(values: Any) -> Any:
    """The same nesting of containers and dataclasses, with every tensor detached."""
    return apply_to_collection(values, Tensor, Tensor.detach)


def format_metrics_as_dict(metrics: Any) -> nn.ModuleDict:
    """Metrics in any of the usual forms as ``{"_train": {name: metric}, "_val": {...}}``.

    Args:
        metrics: ``None``; one torchmetrics ``Metric`` or a list of them, named after their classes;
            a mapping of names; or a mapping of ``train`` and ``val`` to any of these. What has no
            stage is for validation. The metrics are copied.

    Raises:
        TypeError: If something is not a ``Metric``.
    """
    staged = isinstance(metrics, Mapping) and set(metrics) == STAGES
    forms = metrics if staged else {"train": None, "val": metrics}
    return nn.ModuleDict(
        {f"_{stage}": nn.ModuleDict(named_metrics(forms[stage])) for stage in ("train", "val")}
    )
