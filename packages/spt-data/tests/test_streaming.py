"""Streams: shared out among ranks and workers, numbered, shuffled, resumed."""

import pickle

import datasets as hf
import pytest
import torch
from spt_data import (
    CorruptSampleError,
    DataModule,
    HFIterableDataset,
    Loader,
    huggingface,
)
from spt_data import datasets as spt_datasets


@pytest.fixture(scope="module")
def rows():
    """24 rows in four shards; row ``x`` is in shard ``x // 6``."""
    return hf.Dataset.from_dict({"x": list(range(24))}).to_iterable_dataset(num_shards=4)


def stream(rows, **options):
    return HFIterableDataset(rows, **options)


def noisy(sample):
    return {**sample, "noise": torch.rand(())}


def read(dataset, num_workers=0, epochs=1, **options):
    loader = Loader(dataset, batch_size=2, num_workers=num_workers, seed=3, **options)
    passes = [[row for batch in loader for row in rows_of(batch)] for _ in range(epochs)]
    return passes if epochs > 1 else passes[0]


def rows_of(batch):
    keys = [key for key in ("x", "sample_idx", "noise") if key in batch]
    return list(zip(*(batch[key].tolist() for key in keys), strict=True))


def test_rows_have_the_same_number_for_any_workers_and_order(rows):
    here = read(stream(rows))
    assert sorted(x for x, _ in here) == list(range(24))
    assert len({number for _, number in here}) == 24
    assert sorted(read(stream(rows), num_workers=2)) == sorted(here)
    shuffled = read(stream(rows).shuffle(seed=1, buffer_size=8))
    assert shuffled != here
    assert sorted(shuffled) == sorted(here)


def test_the_order_of_a_shuffled_stream_changes_each_epoch_and_repeats(rows):
    first, second = read(stream(rows).shuffle(buffer_size=8), epochs=2)
    assert first != second
    assert sorted(first) == sorted(second)
    assert read(stream(rows).shuffle(buffer_size=8), epochs=2) == [first, second]


def test_augmentation_follows_the_row_and_the_epoch(rows):
    def by_row(rows):
        return {x: noise for x, _, noise in rows}

    first, second = read(stream(rows, transform=noisy), epochs=2)
    assert by_row(first) != by_row(second)
    assert by_row(read(stream(rows, transform=noisy), num_workers=2)) == by_row(first)
    shuffled = read(stream(rows, transform=noisy).shuffle(buffer_size=8))
    assert by_row(shuffled) == by_row(first)


def test_ranks_and_workers_share_the_rows_out(rows, monkeypatch):
    shares = []
    for rank in range(2):
        monkeypatch.setattr(huggingface, "rank_and_world", lambda rank=rank: (rank, 2))
        shares.append(read(stream(rows), num_workers=2))
    together = [x for share in shares for x, _ in share]
    assert sorted(together) == list(range(24))
    assert len(shares[0]) == len(shares[1]) == 12
    monkeypatch.undo()
    assert sorted(row for share in shares for row in share) == sorted(read(stream(rows)))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 4])
@pytest.mark.parametrize("epoch", [0, 1])
def test_a_stream_goes_on_after_any_batch(rows, num_workers, stop, epoch):
    def loader():
        dataset = stream(rows, transform=noisy).shuffle(buffer_size=8)
        return Loader(dataset, batch_size=2, num_workers=num_workers, seed=3)

    whole = loader()
    expected = [[rows_of(batch) for batch in whole] for _ in range(3)]
    running = loader()
    for _ in range(epoch):
        list(running)
    batches = iter(running)
    start = [rows_of(next(batches)) for _ in range(stop)]
    resumed = loader()
    resumed.load_state_dict(running.state_dict())
    assert start + [rows_of(batch) for batch in resumed] == expected[epoch]
    assert [rows_of(batch) for batch in resumed] == expected[epoch + 1]


def test_a_stream_crosses_to_workers_that_are_not_forked_from_here(rows):
    dataset = pickle.loads(pickle.dumps(stream(rows, rename_columns={"x": "y"})))
    assert [sample["y"] for sample in dataset] == list(range(24))
    loader = Loader(stream(rows), batch_size=4, num_workers=1, multiprocessing_context="forkserver")
    assert sum(len(batch["x"]) for batch in loader) == 24


def test_a_stream_in_a_data_module(rows):
    data = DataModule(train={"dataset": stream(rows), "batch_size": 5, "num_workers": 1})
    data.setup("fit")
    batches = iter(data.train_dataloader())
    first = next(batches)["x"].tolist()
    state = data.state_dict()
    again = DataModule(train={"dataset": stream(rows), "batch_size": 5, "num_workers": 1})
    again.load_state_dict(state)
    again.setup("fit")
    rest = [batch["x"].tolist() for batch in again.train_dataloader()]
    assert rest == [batch["x"].tolist() for batch in batches]
    assert sorted(first + [x for batch in rest for x in batch]) == list(range(24))


def pictures(broken):
    """Ten encoded images, some of which are no images."""
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("L", (4, 4), 9).save(buffer, "PNG")
    cells = [
        {"bytes": b"no image" if i in broken else buffer.getvalue(), "path": None}
        for i in range(10)
    ]
    features = hf.Features({"image": hf.Image()})
    return hf.Dataset.from_dict({"image": cells}, features=features)


def to_number(sample):
    return {"sample_idx": sample["sample_idx"], "side": sample["image"].size[0]}


def test_corrupt_rows_of_a_stream_are_skipped_and_counted(caplog):
    dataset = HFIterableDataset(
        pictures({2, 5}).to_iterable_dataset(num_shards=2), transform=to_number, on_error="skip"
    )
    rows = [row for batch in Loader(dataset, batch_size=3, num_workers=1) for row in rows_of(batch)]
    assert len(rows) == 8
    assert dataset.n_skipped == 2
    strict = HFIterableDataset(pictures({0}).to_iterable_dataset(), transform=to_number)
    with pytest.raises(CorruptSampleError, match="Sample 0 cannot be decoded"):
        next(iter(strict))


def test_own_numbers_are_kept(tmp_path):
    rows = hf.Dataset.from_dict({"x": [1, 2], "sample_idx": [40, 41]})
    dataset = HFIterableDataset(rows.to_iterable_dataset())
    assert [sample["sample_idx"] for sample in dataset] == [40, 41]


def test_a_stream_without_rows_of_its_own_is_an_error():
    with pytest.raises(NotImplementedError, match="`IterableDataset` must have `rows`"):
        next(iter(spt_datasets.IterableDataset()))


def test_streams_that_choose_rows_across_shards_are_refused(rows):
    for chosen in (rows.take(5), rows.skip(5), hf.interleave_datasets([rows, rows])):
        with pytest.raises(ValueError, match="cannot number the rows of a stream with a "):
            stream(chosen.map(dict))
    with pytest.raises(ValueError, match="Shuffle with HFIterableDataset.shuffle"):
        stream(rows.shuffle(seed=1, buffer_size=4))
    features = hf.Features({"x": hf.Value("int64"), "sample_idx": hf.Value("int64")})
    numbered = rows.map(lambda row: {"sample_idx": row["x"]}, features=features).take(5)
    assert [x for x, _ in read(stream(numbered))] == list(range(5))
    joined = hf.concatenate_datasets([rows, rows])
    assert len(read(stream(joined))) == 48
