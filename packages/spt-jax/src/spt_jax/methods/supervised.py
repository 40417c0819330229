"""Supervised classification."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spt_jax.losses.common import cross_entropy, mean_of_rows, wide
from spt_jax.methods._method import weight_of
from spt_jax.module import State


def supervised(self: Any, batch: Mapping[str, Any], stage: str) -> State:
    """Predict the label of each image.

    Needs: ``backbone``, ``classifier``.
    Reads: ``image`` ``(N, H, W, C)`` and, in ``fit``, ``label`` ``(N,)``.
    Writes: ``embedding``, ``logits``, and with labels ``label`` and ``loss``.
    """
    embedding = self.backbone(batch["image"])
    state: State = {"embedding": embedding, "logits": self.classifier(embedding)}
    if "label" in batch:
        state["label"] = batch["label"]
        losses = cross_entropy(wide(state["logits"]), batch["label"])
        state["loss"] = mean_of_rows(losses, weight_of(batch))
    return state
