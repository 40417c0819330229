"""The effective rank of the training embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np

from spt_jax.callbacks.queue import OnlineQueue, oldest_first
from spt_jax.callbacks.spectrum import entropy_of
from spt_jax.callbacks.spectrum import rankme as rankme


class RankMe(OnlineQueue):
    """Log the effective rank of the newest training embeddings at each validation.

    Logs ``{name}``; with ``verbose`` also ``{name}/entropy`` and ``{name}/top_singular_value``.

    Args:
        name: Key in the logs.
        input: Key of the embeddings ``(N, D)``.
        verbose: Log the details, too.
        queue_length: Embeddings kept.
        epsilon: Added to each share of the spectrum; the paper's.
    """

    def __init__(
        self,
        name: str = "rankme",
        input: str = "embedding",
        verbose: bool = False,
        queue_length: int = 8192,
        epsilon: float = 1e-7,
    ) -> None:
        super().__init__(input, queue_length, name=name)
        self.verbose = verbose
        self.epsilon = epsilon

    def finish(self, state: Any) -> tuple[Any, dict[str, float]]:
        """The rank; nothing while there are no embeddings."""
        rows = oldest_first(state)
        if not len(rows):
            return state, {}
        singular = np.linalg.svd(rows.astype(np.float64), compute_uv=False)
        entropy = entropy_of(singular, self.epsilon)
        found = {self.name: float(np.exp(entropy))}
        if self.verbose:
            found[f"{self.name}/entropy"] = entropy
            found[f"{self.name}/top_singular_value"] = float(singular[0])
        return state, found
