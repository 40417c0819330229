"""kNN and RankMe against official code's values; the ring against a plain list."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from spt_callbacks import MissingKeyError, knn_vote, rankme
from spt_callbacks.queue import Queues, Ring

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("chunk_size", [-1, 7, 128])
@pytest.mark.parametrize("k", [10, 20])
def test_knn_agrees_with_the_official_code(k, chunk_size):
    golden = np.load(GOLDEN / "knn_dino.npz")
    labels = torch.tensor(golden["train_labels"]).long()
    scores = knn_vote(
        torch.tensor(golden["train_features"]),
        labels,
        torch.tensor(golden["test_features"]),
        num_classes=12,
        k=k,
        temperature=0.07,
        chunk_size=chunk_size,
    )
    votes = torch.tensor(golden[f"votes_k{k}_T0p07"])
    expected = votes / votes.sum(1, keepdim=True)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-6)
    cases = json.loads((GOLDEN / "knn_dino.json").read_text())["cases"]
    (top1,) = (case["top1"] for case in cases if case["k"] == k)
    accuracy = (scores.argmax(1) == torch.tensor(golden["test_labels"])).double().mean()
    assert 100 * accuracy.item() == pytest.approx(top1, abs=1e-6)


def test_knn_with_fewer_rows_than_k_and_tiny_temperature():
    bank, labels = torch.eye(3), torch.tensor([2, 0, 1])
    scores = knn_vote(bank, labels, torch.eye(3), num_classes=4, k=50, temperature=1e-4)
    torch.testing.assert_close(scores.argmax(1), labels)
    assert scores.isfinite().all()


@pytest.mark.parametrize("case", ["isotropic", "rank5", "rank1", "power1", "fewrows", "shifted"])
def test_rankme_agrees_with_its_formula(case):
    embeddings = torch.tensor(np.load(GOLDEN / "rankme.npz")[f"Z_{case}"])
    expected = json.loads((GOLDEN / "rankme.json").read_text())["cases"][case]
    assert rankme(embeddings, epsilon=1e-7).item() == pytest.approx(
        expected["rankme_eps1e-7"], rel=1e-9
    )
    assert rankme(embeddings.float()).item() == pytest.approx(expected["rankme_eps1e-7"], rel=1e-4)
    assert rankme(embeddings).item() == pytest.approx(expected["rankme_eps0"], rel=1e-9)
    assert rankme(embeddings, epsilon=1e-30).item() == pytest.approx(
        expected["rankme_eps0"], rel=1e-7
    )


def test_rankme_of_zeros_is_finite_and_shapes_are_checked():
    assert rankme(torch.zeros(5, 3)).isfinite()
    with pytest.raises(ValueError, match=r"`embeddings` must have shape \(N, D\), got \(3,\)"):
        rankme(torch.ones(3))


@pytest.mark.parametrize("length", [1, 4, 7])
def test_the_ring_holds_the_newest_rows_in_order(length):
    ring, told = Ring(length), []
    generator = torch.Generator().manual_seed(0)
    for step in range(30):
        n = int(torch.randint(0, 10, (1,), generator=generator))
        rows = torch.arange(n) + 100 * step
        ring.append(rows)
        told += rows.tolist()
        expected = told[-length:]
        found = ring.newest(length)
        assert (found.tolist() if found is not None else []) == expected
        assert ring.newest(2).tolist() == told[-min(2, length) :]


def test_integers_stay_exact_and_other_shapes_are_refused():
    ring = Ring(2)
    ring.append(torch.tensor([2**53 + 1]))
    assert ring.newest(1).tolist() == [2**53 + 1]
    with pytest.raises(ValueError, match=r"rows of shape \(\), got \(3,\)"):
        ring.append(torch.ones(1, 3))


@pytest.mark.parametrize("length", [2, 9])
def test_resizing_keeps_the_newest(length):
    ring = Ring(5)
    ring.append(torch.arange(8))
    ring.resize(length)
    assert ring.newest(9).tolist() == list(range(8))[-min(5, length) :]


def test_callbacks_share_one_ring_and_a_batch_is_added_once():
    queues = Queues()
    queues.request(("a",), 4, "one")
    queues.request(("a", "b"), 6, "two")
    assert queues.rings["a"].length == 6
    assert queues.snapshot(("a",), 3) is None
    for index in (0, 0, 1):
        queues.append(index, {"a": torch.arange(2) + index}, {"b": torch.ones(2)})
    a, b = queues.snapshot(("a", "b"), 3)
    assert a.tolist() == [1, 1, 2]
    assert len(b) == 3
    (fewer,) = queues.snapshot(("a",), 2)  # a view of the one snapshot, not a copy of its own
    assert fewer.tolist() == [1, 2]
    assert fewer.untyped_storage().data_ptr() == a.untyped_storage().data_ptr()
    with pytest.raises(ValueError, match="`queue_length` of three must be >= 1, got 0"):
        queues.request(("a",), 0, "three")
    with pytest.raises(MissingKeyError, match="two needs the key 'b'; the step returned"):
        queues.append(2, {"a": torch.ones(1)}, {})
