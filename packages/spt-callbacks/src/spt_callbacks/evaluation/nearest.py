"""Nearest neighbours of queries in a bank, and the vote of their classes.

Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018,
section 3.4 (https://arxiv.org/abs/1805.01978); the same vote in DINO (https://arxiv.org/abs/2104.14294).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

Distance = Literal["cosine", "euclidean", "squared_euclidean", "manhattan"]
CPU_ROWS, CPU_QUERIES, DEVICE_ROWS = 8192, 512, 65536
"""Rows compared at once by default, and with how many queries on a processor: 16 MB of
similarities stay in its cache until the nearest are picked, a larger device is kept busy."""
GROUP = 8
"""Rows of which only the nearest is looked at first."""


class Bank:
    """Features to compare with, prepared once for many queries.

    Args:
        features: ``(N, D)`` or ``(N, ...)``, which is flattened.
        metric: ``"cosine"``, ``"euclidean"``, ``"squared_euclidean"`` or ``"manhattan"``.
        chunk_size: Rows compared at once; -1 for what suits the device. Bounds the memory; the
            result does not depend on it.

    Raises:
        ValueError: If the metric is unknown or ``chunk_size`` is 0 or below -1.
    """

    def __init__(self, features: Tensor, metric: Distance = "cosine", chunk_size: int = -1) -> None:
        check_metric(metric)
        check_chunk_size(chunk_size)
        self.metric = metric
        self.rows = self._prepared(features)
        self.squares = self.rows.square().sum(1) if "euclidean" in metric else None
        default = CPU_ROWS if self.rows.device.type == "cpu" else DEVICE_ROWS
        self.chunk_size = max(min(default if chunk_size == -1 else chunk_size, len(self.rows)), 1)

    def _prepared(self, x: Tensor) -> Tensor:
        flat = x.flatten(1) if x.dtype == torch.float64 else x.flatten(1).float()
        return F.normalize(flat, dim=1) if self.metric == "cosine" else flat

    @torch.no_grad()
    def nearest(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The ``k`` nearest rows of each query, or all if there are fewer, nearest first.

        Args:
            queries: ``(M, D)``.
            k: How many.

        Returns:
            Cosines, or distances, ``(M, k)`` and the rows' indices ``(M, k)``.
        """
        queries = self._prepared(queries).to(self.rows.dtype)
        size = CPU_QUERIES if queries.device.type == "cpu" else max(len(queries), 1)
        taken = 0 if self.metric == "manhattan" else min(size, len(queries)) * self.chunk_size
        products = queries.new_empty(taken)
        with torch.autocast(queries.device.type, enabled=False):
            found = [self._nearest(part, k, products) for part in queries.split(size)]
        nearness, indices = (torch.cat(parts) for parts in zip(*found, strict=True))
        return self._distance(queries, nearness), indices

    def _nearest(self, queries: Tensor, k: int, products: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] | None = None
        for start in range(0, len(self.rows), self.chunk_size):
            near = self._nearness(queries, slice(start, start + self.chunk_size), products)
            values, indices = largest(near, min(k, near.shape[1]))
            best = (values, indices + start)
            found = best if found is None else _better(found, best, k)
        assert found is not None
        return found

    def _nearness(self, queries: Tensor, part: slice, products: Tensor) -> Tensor:
        """Larger is nearer, ``(M, chunk)``; for Euclidean distances up to the query's length.

        ``products`` is written over: memory that is asked for anew costs a third of the search.
        """
        rows = self.rows[part]
        if self.metric == "manhattan":
            return torch.cdist(queries, rows, p=1).neg_()
        near = products[: len(queries) * len(rows)].view(len(queries), len(rows))
        torch.mm(queries, rows.T, out=near)
        if self.metric == "cosine":
            return near
        assert self.squares is not None
        return near.mul_(2).sub_(self.squares[part])

    def _distance(self, queries: Tensor, nearness: Tensor) -> Tensor:
        if self.metric == "cosine":
            return nearness
        if self.metric == "manhattan":
            return -nearness
        squares = (queries.square().sum(1, keepdim=True) - nearness).clamp(min=0)
        return squares.sqrt() if self.metric == "euclidean" else squares


def largest(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As ``x.topk(k, dim=1)``, several times as fast on a processor if ``x`` is wide.

    The k largest of a row lie in the k groups with the largest maxima; only these are sorted.
    """
    groups = x.shape[1] // GROUP
    if groups < 2 * k:
        top = x.topk(k, dim=1)
        return top.values, top.indices
    whole = groups * GROUP
    _, best = largest(x[:, :whole].unflatten(1, (GROUP, groups)).amax(1), k)
    steps = torch.arange(0, whole, groups, device=x.device)
    rest = torch.arange(whole, x.shape[1], device=x.device).expand(len(x), -1)
    index = torch.cat([(best[:, None] + steps[:, None]).flatten(1), rest], dim=1)
    top = x.gather(1, index).topk(k, dim=1)
    return top.values, index.gather(1, top.indices)


def _better(
    one: tuple[Tensor, Tensor], two: tuple[Tensor, Tensor], k: int
) -> tuple[Tensor, Tensor]:
    """The ``k`` nearest of two lists of neighbours."""
    values, indices = (torch.cat(pair, dim=1) for pair in zip(one, two, strict=True))
    top = values.topk(min(k, values.shape[1]), dim=1)
    return top.values, indices.gather(1, top.indices)


def vote(
    closeness: Tensor,
    classes: Tensor,
    *,
    num_classes: int,
    temperature: float = 0.07,
    metric: Distance = "cosine",
) -> Tensor:
    """Scores of each class by its neighbours' weights.

    A cosine s weighs ``exp(s / temperature)``, a distance d ``1 / (d + temperature)``.

    Args:
        closeness: Cosines or distances ``(M, k)``.
        classes: The neighbours' classes, int64 ``(M, k)``.
        num_classes: C.
        temperature: tau.
        metric: What ``closeness`` holds.

    Returns:
        Scores ``(M, C)``, each row summing to 1.
    """
    if metric == "cosine":
        weights = (closeness / temperature).softmax(dim=1)
    else:
        weights = 1 / (closeness + temperature)
        weights = weights / weights.sum(1, keepdim=True)
    return weights.new_zeros(len(classes), num_classes).scatter_add_(1, classes, weights)


def knn_vote(
    bank: Tensor,
    labels: Tensor,
    queries: Tensor,
    *,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    chunk_size: int = -1,
    distance_metric: Distance = "cosine",
) -> Tensor:
    """Scores of each class by the nearest features; ``exp(cosine / temperature)`` by default.

    Args:
        bank: Features ``(N, D)``.
        labels: Their classes, int64 ``(N,)``.
        queries: Features ``(M, D)``.
        num_classes: C.
        k: Neighbours that vote; all of the bank if it is smaller.
        temperature: tau.
        chunk_size: Rows of the bank compared at once; -1 for what suits the device. Bounds the
            memory; the result does not depend on it.
        distance_metric: ``"cosine"``, or a distance, whose weights are ``1 / (d + temperature)``.

    Returns:
        Scores ``(M, C)``, each row summing to 1.

    Raises:
        ValueError: If the metric is unknown or ``chunk_size`` is 0 or below -1.
    """
    closeness, index = Bank(bank, distance_metric, chunk_size).nearest(queries, k)
    return vote(
        closeness,
        labels[index],
        num_classes=num_classes,
        temperature=temperature,
        metric=distance_metric,
    )


def check_metric(metric: str) -> None:
    """Refuse a distance that is not known.

    Raises:
        ValueError: If it is unknown.
    """
    if metric not in get_args(Distance):
        raise ValueError(
            f"`distance_metric` must be one of {list(get_args(Distance))}, got {metric!r}."
        )


def check_chunk_size(chunk_size: int) -> None:
    """Refuse a chunk size that is no number of rows.

    Raises:
        ValueError: If it is 0 or below -1.
    """
    if chunk_size != -1 and chunk_size < 1:
        raise ValueError(f"`chunk_size` must be -1 or >= 1, got {chunk_size}.")
