"""The effective rank of the training embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from spt_jax.callbacks.base import Callback, Logs, push


def rankme(embeddings: np.ndarray, epsilon: float = 1e-7) -> float:
    """Exponential of the entropy of the normalised singular values, in float64.

    Garrido et al., ICML 2023, eq. 1 (https://arxiv.org/abs/2210.02885).

    Args:
        embeddings: ``(N, D)``, not centred.
        epsilon: Added to each share.
    """
    singular = np.linalg.svd(embeddings.astype(np.float64), compute_uv=False)
    share = singular / max(singular.sum(), np.finfo(np.float64).tiny) + epsilon
    return float(np.exp(-(share * np.log(share)).sum()))


class RankMe(Callback):
    """Log the effective rank of the newest training embeddings under ``{name}``.

    Args:
        name: Key in the logs.
        input: Key of the embeddings.
        queue_length: Embeddings kept.
    """

    def __init__(
        self, name: str = "rankme", input: str = "embedding", queue_length: int = 2048
    ) -> None:
        self.name = name
        self.input = input
        self.queue_length = queue_length

    def init(self, outputs: Mapping[str, Any]) -> Any:
        """An empty ring."""
        (features,) = self.need(outputs, self.input)
        rows = jnp.zeros((self.queue_length, features.shape[-1]))
        return {"rows": rows, "seen": jnp.zeros((), jnp.int32)}

    def train(self, state: Any, outputs: Mapping[str, Any]) -> tuple[Any, Logs]:
        """Add this batch."""
        (features,) = self.need(outputs, self.input)
        rows = push(state["rows"], state["seen"], features)
        return {"rows": rows, "seen": state["seen"] + len(features)}, {}

    def finish(self, state: Any) -> tuple[Any, dict[str, float]]:
        """The rank; nothing while there are no embeddings."""
        filled = min(int(state["seen"]), self.queue_length)
        if filled == 0:
            return state, {}
        return state, {self.name: rankme(np.asarray(state["rows"][:filled]))}
