"""Live image retrieval over the validation set; see :mod:`spt_callbacks.evaluation.revisited`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal

import lightning as pl
import torch
from loguru import logger
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.retrieval.base import RetrievalMetric

from spt_callbacks.distributed import gather_rows, largest_of_ranks
from spt_callbacks.evaluation.revisited import (
    PROTOCOLS,
    RankingScores,
    Relevance,
    places_of,
    split_relevance,
)
from spt_callbacks.keys import Key, check_rows, check_width, look_up, look_up_float
from spt_callbacks.named import NamedCallback

CHUNK = 256


class ImageRetrieval(NamedCallback):
    """Rank the validation images by their similarity to each query and score the rankings.

    Logs ``eval/{name}_map_{protocol}`` and ``eval/{name}_p{k}_{protocol}`` in [0, 1] (``test/...`` in
    testing), for relevance given as ``relevant`` and ``ignored`` without the protocol's name.
    Queries are no part of the gallery, and junk images leave a ranking before it is scored.

    Args:
        module: Accepted so that ``ImageRetrieval(module, name=...)`` works; not used.
        name: Name in the logs.
        input: Key of the features ``(N, D)``.
        queries: For each query's ``sample_idx``, its lists of gallery images by ``sample_idx``:
            ``{"easy": [...], "hard": [...], "junk": [...]}``, or
            ``{"relevant": [...], "ignored": [...]}``.
        protocols: ``"easy"``, ``"medium"``, ``"hard"``, or ``"all"`` for the second form; those that
            fit the first query by default.
        ks: Cut-offs of the precision.
        metrics: Further metrics by name, of ``torchmetrics.retrieval``; logged as
            ``eval/{name}_{metric}_{protocol}``.
        group: Key of the images' numbers, integers ``(N,)``.
        features_dim: Width of the features, checked if given.
        normalizer: ``"batch_norm"``, centre and scale each feature over the gallery;
            ``"layer_norm"``, each image over its features. Before features are brought to unit length.

    Raises:
        ValueError: If a setting is out of range; in validation, if a query was not seen.
        TypeError: If a metric is not one of torchmetrics' retrieval metrics.
    """

    def __init__(
        self,
        module: pl.LightningModule | None = None,
        name: str = "retrieval",
        input: Key = "embedding",
        *,
        queries: Mapping[int, Relevance],
        protocols: Sequence[str] | None = None,
        ks: Sequence[int] = (1, 5, 10),
        metrics: Mapping[str, RetrievalMetric] | None = None,
        group: Key = "sample_idx",
        features_dim: int | None = None,
        normalizer: Literal["batch_norm", "layer_norm"] | None = None,
    ) -> None:
        if not queries:
            raise ValueError(f"`queries` of ImageRetrieval {name!r} must not be empty.")
        if normalizer not in (None, "batch_norm", "layer_norm"):
            raise ValueError(
                f'`normalizer` must be "batch_norm", "layer_norm" or None, got {normalizer!r}.'
            )
        plain = "relevant" in next(iter(queries.values()))
        self.protocols = tuple(protocols or (("all",) if plain else ("easy", "medium", "hard")))
        unknown = sorted(set(self.protocols) - set(PROTOCOLS))
        if unknown:
            raise ValueError(f"`protocols` must be of {list(PROTOCOLS)}, got {unknown}.")
        for label, metric in (metrics or {}).items():
            if not isinstance(metric, RetrievalMetric):
                raise TypeError(
                    "`metrics` must hold torchmetrics retrieval metrics, got "
                    f"{type(metric).__name__} as {label!r}."
                )
        self.name = name
        self.input = input
        self.queries = {int(query): lists for query, lists in queries.items()}
        self.ks = tuple(ks)
        self.metrics = dict(metrics or {})
        self.group = group
        self.features_dim = features_dim
        self.normalizer = normalizer
        self._features: list[Tensor] = []
        self._ids: list[Tensor] = []
        self._twins: dict[tuple[int, str], RetrievalMetric] = {}

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin with nothing."""
        self._features, self._ids = [], []

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect this batch."""
        features = look_up_float(self.input, outputs, batch, self.caller)
        ids = look_up(self.group, outputs, batch, self.caller)
        check_rows(features, ids, (self.input, self.group), self.caller)
        check_width(features, self.features_dim, "features_dim", self.input, self.caller)
        self._features.append(features.flatten(1))
        self._ids.append(ids.long())

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Rank, score and log; the same on all ranks."""
        self._finish(trainer, pl_module, f"eval/{self.name}")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Rank, score and log; the same on all ranks."""
        self._finish(trainer, pl_module, f"test/{self.name}")

    def _finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule, prefix: str) -> None:
        found = self._collected(pl_module.device)
        if found is None:
            return
        features, ids = found
        numbers = ids.tolist()
        missing = sorted(set(self.queries) - set(numbers))
        if missing and trainer.sanity_checking:
            return
        if missing:
            raise ValueError(
                f"{self.caller} saw no image of {self.group!r} {missing[:5]} ({len(missing)} of "
                f"{len(self.queries)} queries) among {len(numbers)} images."
            )
        with torch.inference_mode(False), torch.no_grad():
            values = self._scores(features, ids)
        if not values:
            logger.warning(f"{self.caller} has no query with a relevant image; reports nothing.")
        pl_module.log_dict(
            {f"{prefix}_{name}": value for name, value in values.items()},
            on_step=False,
            on_epoch=True,
            sync_dist=True,
        )

    def _collected(self, device: torch.device) -> tuple[Tensor, Tensor] | None:
        """Features and numbers of all ranks, each image once."""
        widths = {x.shape[1] for x in self._features}
        width = largest_of_ranks(max(widths, default=0), device)
        if not width:
            return None
        features = torch.cat([torch.zeros(0, width, device=device), *self._features])
        ids = torch.cat([torch.zeros(0, dtype=torch.int64, device=device), *self._ids])
        self._features, self._ids = [], []
        features, ids = gather_rows(features), gather_rows(ids)
        numbers, index = ids.unique(return_inverse=True)
        first = torch.full_like(numbers, len(ids)).scatter_reduce_(
            0, index, torch.arange(len(ids), device=device), "amin"
        )
        return features[first], numbers

    def _normalized(self, features: Tensor, gallery: Tensor) -> Tensor:
        if self.normalizer == "batch_norm":
            known = features[gallery]
            features = (features - known.mean(0)) / known.std(0, unbiased=False).clamp(min=1e-6)
        elif self.normalizer == "layer_norm":
            features = F.layer_norm(features, features.shape[1:])
        return F.normalize(features, dim=1)

    def _scores(self, features: Tensor, ids: Tensor) -> dict[str, float]:
        place = {number: i for i, number in enumerate(ids.tolist())}
        rows = torch.tensor([place[query] for query in self.queries], device=ids.device)
        gallery = torch.ones(len(ids), dtype=torch.bool, device=ids.device)
        gallery[rows] = False
        features = self._normalized(features, gallery)
        images, found = ids[gallery], {protocol: RankingScores() for protocol in self.protocols}
        for part, queries in zip(
            rows.split(CHUNK), torch.tensor(list(self.queries)).split(CHUNK), strict=True
        ):
            similarity = features[part] @ features[gallery].T
            order = images[similarity.argsort(dim=1, descending=True, stable=True)].cpu()
            for query, ranking, row in zip(
                queries.tolist(), order.tolist(), similarity, strict=True
            ):
                for protocol, tally in found.items():
                    relevant, ignored = split_relevance(self.queries[query], protocol)
                    if relevant:
                        places = places_of(ranking, relevant, ignored)
                        tally.add(places, len(relevant), self.ks)
                        self._update(query, row, images, relevant, ignored, protocol)
        return self._named(found)

    def _update(
        self,
        query: int,
        row: Tensor,
        images: Tensor,
        relevant: Sequence[int],
        ignored: Sequence[int],
        protocol: str,
    ) -> None:
        """Tell the user's metrics about a ranking, without its junk."""
        if not self.metrics:
            return
        positives, junk = (
            torch.isin(images, torch.tensor(list(part), device=images.device, dtype=images.dtype))
            for part in (relevant, ignored)
        )
        kept = ~junk
        positive = row.double() + 2  # torchmetrics takes a score of 0 or less for no answer
        for metric in self.metrics.values():
            if (id(metric), protocol) not in self._twins:
                self._twins[id(metric), protocol] = deepcopy(metric).to(row.device)
            index = torch.full_like(images[kept], query)
            self._twins[id(metric), protocol].update(positive[kept], positives[kept], indexes=index)

    def _named(self, found: dict[str, RankingScores]) -> dict[str, float]:
        values: dict[str, float] = {}
        for protocol, tally in found.items():
            suffix = "" if protocol == "all" else f"_{protocol}"
            values |= {f"{name}{suffix}": value for name, value in tally.means().items()}
            for name, metric in self.metrics.items():
                twin = self._twins.pop((id(metric), protocol), None)
                if twin is not None:
                    twin.sync_on_compute = False  # every rank has all rankings
                    values[f"{name}{suffix}"] = float(twin.compute())
        return values
