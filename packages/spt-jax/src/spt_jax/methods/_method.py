"""What the method classes share: an encoder, common settings, and how views are found in a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from spt_jax._compat import read, write
from spt_jax.backbone.layers import compute_in
from spt_jax.batches import WEIGHT
from spt_jax.losses.common import l2_normalize
from spt_jax.module import Module, State
from spt_jax.ring import push


class Method(Module):
    """A method on an encoder.

    Args:
        forward: The method's forward function; its name is recorded as ``method``.
        backbone: From images ``(N, H, W, C)`` to features ``(N, embed_dim)``.
        settings: What to record among the hyper-parameters.
        parts: The components that the method adds.
        optim: As for :class:`Module`.
        transform: ``(key, batch) -> batch`` that makes the views.
        eval_transform: ``batch -> batch`` for the other stages.
        aug_seed: Of the transform's keys.
        hparams: Further hyper-parameters to record.
        dtype: Of the computation; float32, or what the Trainer's ``precision`` says, by default.
    """

    def __init__(
        self,
        forward: Callable[..., State],
        backbone: nnx.Module,
        *,
        settings: Mapping[str, Any],
        parts: Mapping[str, Any],
        optim: Any = "adamw",
        transform: Any = None,
        eval_transform: Any = None,
        aug_seed: int = 0,
        hparams: Mapping[str, Any] | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            forward=forward,
            backbone=backbone,
            optim=optim,
            transform=transform,
            eval_transform=eval_transform,
            aug_seed=aug_seed,
            hparams={"method": forward.__name__, **settings, **(hparams or {})},
            **parts,
        )
        compute_in(self, dtype)


class Buffer(nnx.Variable):
    """State of a method that is no weight: a centre, a queue."""


def views_of(batch: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The views of a batch: ``views``, or ``global_views``, or the batch itself."""
    views = batch.get("views", batch.get("global_views"))
    return [batch] if views is None else list(views)


def two_views_of(batch: Mapping[str, Any], method: str) -> list[Mapping[str, Any]]:
    """The two views that a method trains on.

    Raises:
        ValueError: If there is another number.
    """
    views = views_of(batch)
    if len(views) != 2:
        raise ValueError(
            f"{method} trains on 2 views, got {len(views)}; give the module "
            "`transform=augment.two_view_transform(size)`."
        )
    return views


def crops_of(batch: Mapping[str, Any], method: str) -> tuple[list[Any], list[Any]]:
    """Large and small crops; ``views`` are large ones.

    Raises:
        ValueError: If there are fewer than two crops, or no large one.
    """
    large, small = views_of(batch), list(batch.get("local_views", []))
    if len(large) + len(small) < 2:
        raise ValueError(
            f"{method} trains on at least 2 views, got {len(large) + len(small)}; give the module "
            "`transform=augment.multi_crop_transform(...)` or `augment.two_view_transform(size)`."
        )
    return large, small


def images_of(views: list[Any]) -> jax.Array:
    """Images of all views, one view after the other."""
    return jnp.concatenate([view["image"] for view in views])


def labels_of(views: list[Any]) -> State:
    """``label`` in the order of :func:`images_of`, if every view has one."""
    if not all("label" in view for view in views):
        return {}
    return {"label": jnp.concatenate([view["label"] for view in views])}


def embedded(encode: Callable[..., jax.Array], views: list[Any]) -> State:
    """``embedding`` of all views, and their labels."""
    return {"embedding": encode(images_of(views)), **labels_of(views)}


def weight_of(batch: Mapping[str, Any]) -> jax.Array | None:
    """Weights of the rows ``(B,)``; ``None`` outside of a run."""
    return batch.get(WEIGHT)


class FeatureQueue(nnx.Module):
    """The newest unit rows, in a ring that begins with random unit rows.

    Args:
        length: Number of rows.
        dim: Width of the rows.
        rngs: Where the first rows are drawn.
    """

    def __init__(self, length: int, dim: int, *, rngs: nnx.Rngs) -> None:
        if length < 1:
            raise ValueError(f"`length` must be >= 1, got {length}.")
        self.rows = Buffer(l2_normalize(jax.random.normal(rngs.params(), (length, dim))))
        self.seen = Buffer(jnp.zeros((), jnp.int32))

    def content(self) -> jax.Array:
        """The rows ``(length, dim)``."""
        return read(self.rows)

    def push(self, rows: jax.Array, weight: jax.Array | None = None) -> None:
        """Take in rows ``(N, dim)`` in the place of the oldest; those of weight 0 stay out."""
        new = l2_normalize(jax.lax.stop_gradient(rows).astype(jnp.float32))
        ring, seen = push(read(self.rows), read(self.seen), new, weight)
        write(self.rows, ring)
        write(self.seen, seen % len(ring))  # only the place counts: the ring is always full
