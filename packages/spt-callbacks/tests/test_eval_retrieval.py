"""Retrieval with junk against the official code, and live over a shuffled validation set."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from spt_callbacks import ImageRetrieval
from spt_callbacks.evaluation.revisited import (
    average_precision,
    places_of,
    precision_at,
    split_relevance,
)
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMAP, RetrievalRecall

pytestmark = pytest.mark.filterwarnings("ignore:.*dataloader.*")

GOLDEN = Path(__file__).parent / "golden"
VALUES = json.loads((GOLDEN / "retrieval_map.json").read_text())


@pytest.mark.parametrize("case", VALUES["hand"], ids=lambda case: str(case["ok"]))
def test_tiny_rankings_worked_by_hand(case):
    first, last = (int(part) for part in case["ranking"].split(".."))
    places = places_of(range(first, last + 1), case["ok"], case["junk"])
    assert average_precision(places, len(case["ok"])) == pytest.approx(case["AP"], abs=1e-12)
    assert [precision_at(places, k) for k in VALUES["ks"]] == pytest.approx(case["P"])


def test_edges():
    assert average_precision([], 3) == 0.0
    assert precision_at([], 5) == 0.0
    with pytest.raises(ValueError, match="`num_relevant` must be >= 1"):
        average_precision([], 0)


@pytest.mark.parametrize("protocol", ["easy", "medium", "hard"])
def test_precisions_are_those_of_the_official_code(protocol):
    expected = VALUES["expected"][protocol]
    precisions = []
    for ranking, lists, value in zip(
        VALUES["ranks_by_query"], VALUES["ground_truth"], expected["AP"], strict=True
    ):
        relevant, ignored = split_relevance(lists, protocol)
        if value is None:
            assert not relevant
            continue
        precisions.append(average_precision(places_of(ranking, relevant, ignored), len(relevant)))
        assert precisions[-1] == pytest.approx(value, abs=1e-9)
    assert np.mean(precisions) == pytest.approx(expected["mAP"], abs=1e-9)


def data():
    golden = np.load(GOLDEN / "retrieval_features.npz")
    rows = np.concatenate([golden["database_features"], golden["query_features"]])
    return [
        {"x": torch.zeros(8), "label": 0, "sample_idx": i, "z": torch.tensor(row)}
        for i, row in enumerate(rows)
    ]


def queries():
    return {80 + i: lists for i, lists in enumerate(VALUES["ground_truth"])}


def validate(plain, make_trainer, callback, rows, times=1):
    trainer = make_trainer([callback])
    for _ in range(times):
        loader = DataLoader(rows, 16, shuffle=True)
        found = trainer.validate(plain(), loader, verbose=False)[0]
    return found


def test_live_scores_are_those_of_the_official_code(plain, make_trainer):
    """In any order, validated again, and with some images twice, as a sampler pads them."""
    callback = ImageRetrieval(None, "r", "z", queries=queries())
    rows = data()
    found = validate(plain, make_trainer, callback, [*rows, *rows[:5]], times=2)
    for protocol, expected in VALUES["expected"].items():
        assert found[f"eval/r_map_{protocol}"] == pytest.approx(expected["mAP"], abs=1e-6)
        precisions = [found[f"eval/r_p{k}_{protocol}"] for k in (1, 5, 10)]
        assert precisions == pytest.approx(expected["mP"], abs=1e-6)
    assert callback._features == []


def test_plain_relevance_with_metrics_of_torchmetrics(plain, make_trainer):
    plain_queries = {
        query: {"relevant": lists["easy"] + lists["hard"], "ignored": lists["junk"]}
        for query, lists in queries().items()
    }
    metrics = {"ap": RetrievalMAP(), "recall": RetrievalRecall(top_k=10)}
    callback = ImageRetrieval(name="r", input="z", queries=plain_queries, metrics=metrics, ks=(5,))
    found = validate(plain, make_trainer, callback, data(), times=2)
    assert found["eval/r_map"] == pytest.approx(VALUES["expected"]["medium"]["mAP"], abs=1e-6)
    recalls, precisions = [], []
    for ranking, lists in zip(VALUES["ranks_by_query"], VALUES["ground_truth"], strict=True):
        relevant = lists["easy"] + lists["hard"]
        places = places_of(ranking, relevant, lists["junk"])
        if relevant:
            recalls.append(sum(p < 10 for p in places) / len(relevant))
            precisions.append(np.mean([(i + 1) / (p + 1) for i, p in enumerate(places)]))
    assert found["eval/r_recall"] == pytest.approx(np.mean(recalls), abs=1e-6)
    assert found["eval/r_ap"] == pytest.approx(np.mean(precisions), abs=1e-6)


@pytest.mark.parametrize("normalizer", ["batch_norm", "layer_norm"])
def test_normalizers_undo_what_they_should(plain, make_trainer, normalizer):
    """A shift and scale of features, or of images, changes nothing."""

    def score(change):
        rows = [{**row, "z": change(row["z"])} for row in data()]
        callback = ImageRetrieval(
            name="r", input="z", queries=queries(), protocols=["medium"], normalizer=normalizer
        )
        return validate(plain, make_trainer, callback, rows)["eval/r_map_medium"]

    scale = torch.linspace(1, 9, 24)
    if normalizer == "batch_norm":
        assert score(lambda z: z) == pytest.approx(score(lambda z: z * scale + 7), abs=1e-6)
    else:
        assert score(lambda z: z) == pytest.approx(score(lambda z: 5 * z + 7), abs=1e-6)
    assert score(lambda z: z) != VALUES["expected"]["medium"]["mAP"]


def test_bad_settings_and_missing_queries_are_named(plain, make_trainer):
    with pytest.raises(ValueError, match=r"`protocols` must be of .* got \['x'\]"):
        ImageRetrieval(queries=queries(), protocols=["x"])
    with pytest.raises(ValueError, match="`normalizer` must be .* got 'l2'"):
        ImageRetrieval(queries=queries(), normalizer="l2")
    with pytest.raises(ValueError, match="`queries` of ImageRetrieval 'retrieval' must not be"):
        ImageRetrieval(queries={})
    with pytest.raises(TypeError, match="torchmetrics retrieval metrics, got str as 'a'"):
        ImageRetrieval(queries=queries(), metrics={"a": "map"})
    callback = ImageRetrieval(input="z", queries={500: {"relevant": [1]}})
    with pytest.raises(
        ValueError, match=r"saw no image of 'sample_idx' \[500\] \(1 of 1 queries\)"
    ):
        validate(plain, make_trainer, callback, data())
    callback = ImageRetrieval(input="z", queries=queries(), features_dim=3)
    with pytest.raises(ValueError, match="was told `features_dim=3`, but 'z' has shape"):
        validate(plain, make_trainer, callback, data())
