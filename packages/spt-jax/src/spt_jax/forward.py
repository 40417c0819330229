"""Forward functions, for ``Module(forward=...)``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import optax

State = dict[str, Any]


def simclr(self: Any, batch: Mapping[str, Any], stage: str) -> State:
    """Contrast two views of each image against the rest of the batch.

    Needs: ``backbone``, ``projector``, ``simclr_loss``.
    Reads: ``views``, two of them in ``fit``; or a single ``image`` ``(N, H, W, C)`` elsewhere.
    Writes: ``embedding`` ``(V * N, F)`` and ``label`` to match; in ``fit`` also ``projection`` and ``loss``.
    """
    views = batch.get("views", [batch])
    if stage == "fit" and len(views) != 2:
        raise ValueError(
            f"SimCLR trains on 2 views, got {len(views)}; give the module "
            "`transform=augment.two_view_transform(size)`."
        )
    state: State = {"embedding": self.backbone(jnp.concatenate([v["image"] for v in views]))}
    if all("label" in view for view in views):
        state["label"] = jnp.concatenate([view["label"] for view in views])
    if stage == "fit":
        state["projection"] = self.projector(state["embedding"])
        state["loss"] = self.simclr_loss(*jnp.split(state["projection"], 2))
    return state


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
        logits = state["logits"].astype(jnp.float32)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        state["loss"] = losses.mean()
    return state
