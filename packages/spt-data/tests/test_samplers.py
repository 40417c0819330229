"""Samplers: order, views, ranks, and going on where one stopped."""

import pytest
import torch
from spt_data import (
    RandomBatchSampler,
    RepeatedRandomSampler,
    SupervisedBatchSampler,
    fold_views,
    samplers,
)
from torchdata.stateful_dataloader import StatefulDataLoader

TARGETS = [0] * 6 + [1] * 4 + [2] * 2


def make(name):
    return {
        "repeated": lambda: RepeatedRandomSampler(12, n_views=2, seed=3),
        "batches": lambda: RandomBatchSampler(5, 12, seed=3),
        "supervised": lambda: SupervisedBatchSampler(4, 2, TARGETS, seed=3),
    }[name]()


@pytest.mark.parametrize("name", ["repeated", "batches", "supervised"])
def test_epochs_differ_repeat_and_resume(name):
    sampler = make(name)
    first, second = list(sampler), list(sampler)
    assert first != second
    assert len(first) == len(sampler)
    again = make(name)
    again.set_epoch(1)
    before = torch.get_rng_state()
    assert list(again) == second
    assert torch.equal(before, torch.get_rng_state())
    running = iter(make(name))
    start = [next(running), next(running)]
    resumed = iter(make(name))
    resumed.load_state_dict(running.state_dict())
    assert start + list(resumed) == first


@pytest.mark.parametrize("name", ["repeated", "batches", "supervised"])
def test_ranks_take_different_shares(name, monkeypatch):
    whole = list(make(name))
    shares = []
    for rank in range(2):
        monkeypatch.setattr(samplers, "rank_and_world", lambda rank=rank: (rank, 2))
        shares.append(list(make(name)))
        assert len(make(name)) == len(shares[-1]) == len(whole) // 2
    assert shares[0] != shares[1]
    if name != "supervised":
        assert shares[0] + shares[1] == whole[: 2 * (len(whole) // 2)]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_goes_on_after_any_batch(num_workers):
    def loader():
        return StatefulDataLoader(
            range(12), sampler=make("repeated"), batch_size=4, num_workers=num_workers
        )

    expected = [batch.tolist() for batch in loader()]
    running = loader()
    batches = iter(running)
    start = [next(batches).tolist() for _ in range(2)]
    state = running.state_dict()
    resumed = loader()
    resumed.load_state_dict(state)
    assert start + [batch.tolist() for batch in resumed] == expected


def test_views_are_side_by_side_and_may_be_numbered():
    pairs = list(RepeatedRandomSampler(3, n_views=2, pass_view_idx=True))
    assert [view for _, view in pairs] == [0, 1] * 3
    assert sorted(row for row, _ in pairs) == [0, 0, 1, 1, 2, 2]
    drawn = list(RepeatedRandomSampler(50, replacement=True))
    assert len(drawn) == 50
    assert len(set(drawn)) < 50


def test_classes_come_in_groups():
    for batch in SupervisedBatchSampler(4, 2, TARGETS):
        assert len(batch) == 4
        for a, b in (batch[:2], batch[2:]):
            assert a != b
            assert TARGETS[a] == TARGETS[b]
    rare = SupervisedBatchSampler(6, 3, TARGETS, replacement=True)
    assert all(len(batch) == 6 for batch in rare)


def test_views_keep_the_order_of_the_batch():
    idx = torch.tensor([9, 2, 9, 2])
    first, second = fold_views(torch.tensor([0, 1, 2, 3]), idx)
    assert first.tolist() == [0, 1]
    assert second.tolist() == [2, 3]
    with pytest.raises(RuntimeError, match=r"equally often, got rows \[2, 9\] with counts"):
        fold_views(torch.zeros(3), torch.tensor([9, 9, 2]))


def test_mistakes_are_named():
    with pytest.raises(TypeError, match="`replacement` must be a bool, got 1"):
        RepeatedRandomSampler(3, replacement=1)
    with pytest.raises(ValueError, match="`n_views` must be a positive int, got 0"):
        RepeatedRandomSampler(3, n_views=0)
    with pytest.raises(ValueError, match="`batch_size` is 9, but there are 3 rows"):
        RandomBatchSampler(9, 3)
    with pytest.raises(ValueError, match=r"Classes \[2\] have fewer than `n_views` = 3 rows"):
        SupervisedBatchSampler(6, 3, TARGETS)
    with pytest.raises(ValueError, match="`batch_size` 5 is no multiple of `n_views` 2"):
        SupervisedBatchSampler(5, 2, TARGETS)
