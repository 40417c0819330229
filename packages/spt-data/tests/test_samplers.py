"""Samplers: order, views, ranks, and going on where one stopped."""

import pytest
import torch
from spt_data import (
    FromTorchDataset,
    Loader,
    RandomBatchSampler,
    RepeatedRandomSampler,
    Subset,
    SupervisedBatchSampler,
    fold_views,
    samplers,
)
from spt_data.samplers import ShareSampler
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


@pytest.mark.parametrize("num_workers", [0, 2])
def test_each_copy_of_a_row_is_drawn_anew(num_workers):
    """Views that were drawn alike would let every contrastive loss collapse."""

    def rows():
        noisy = lambda sample: {**sample, "noise": torch.rand(())}  # noqa: E731
        return FromTorchDataset([(i,) for i in range(8)], ["x"], transform=noisy)

    def noise(dataset=None, **options):
        loader = Loader(dataset or rows(), seed=1, num_workers=num_workers, **options)
        return [n for batch in loader for n in batch["noise"].tolist()]

    views = RepeatedRandomSampler(8, n_views=2)
    assert len(set(noise(batch_size=4, sampler=views))) == 16
    part = Subset(Subset(rows(), range(8)), range(8))
    first = noise(part, batch_size=4, sampler=RepeatedRandomSampler(8, n_views=2))
    assert len(set(first)) == 16
    once = noise(batch_size=4, sampler=RepeatedRandomSampler(8))
    assert first[::2] == once  # the first copy is drawn as a single one is
    for pairs in (False, True):
        drawn = RepeatedRandomSampler(8, 2, replacement=True, pass_view_idx=pairs)
        assert len(set(map(str, noise(batch_size=4, sampler=drawn)))) == 16
    classes = SupervisedBatchSampler(4, 4, [0] * 4 + [1] * 4, replacement=True)
    assert len(set(noise(batch_sampler=classes))) == 8


def test_classes_are_those_of_the_rows_of_a_subset():
    class Labelled(torch.utils.data.Dataset):
        targets = torch.tensor([0, 0, 0, 1, 1, 1])

        def __len__(self):
            return 6

    part = Subset(Labelled(), [5, 0, 4, 1])
    assert [int(label) for label in part.targets] == [1, 0, 1, 0]
    for batch in SupervisedBatchSampler(2, 2, part):
        assert sorted(batch) in ([0, 2], [1, 3])
    assert [int(label) for label in Subset(part, [1]).targets] == [0]


def test_a_dataset_without_targets_is_named():
    rows = FromTorchDataset([(1, 2)] * 4, ["x", "label"])
    for source in (rows, Subset(rows, [0, 1]), [{"label": 1}], torch.utils.data.Subset(rows, [0])):
        with pytest.raises(ValueError, match="a dataset with `targets`, got .* without"):
            SupervisedBatchSampler(2, 2, source)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("n", [1, 7, 12])
def test_shares_are_those_of_torch(n, shuffle):
    for rank in range(3):
        torchs = torch.utils.data.DistributedSampler(range(n), 3, rank, shuffle=shuffle, seed=4)
        ours = ShareSampler(n, shuffle, 4, rank=rank, num_replicas=3)
        for epoch in range(2):
            torchs.set_epoch(epoch)
            assert list(ours) == list(torchs)
