"""Datasets of dicts, and the bundled images."""

import copy
import pickle

import datasets as hf
import pytest
import torch
from spt_data import Dataset, FromTorchDataset, HFDataset, HFMapDataset, Subset, sample_dataset
from torch.utils.data import DataLoader


@pytest.fixture(scope="module")
def test_split():
    return sample_dataset("test")


def test_the_bundled_images_are_balanced_and_real(test_split):
    train = sample_dataset("train")
    assert (len(train), len(test_split)) == (6000, 1000)
    for dataset, per_class in ((train, 600), (test_split, 100)):
        labels = torch.tensor(dataset.dataset["label"])
        assert torch.bincount(labels).tolist() == [per_class] * 10
    assert test_split.features["label"].names[7] == "Sneaker"
    sample = test_split[3]
    assert sample["image"].mode == "L"
    assert sample["image"].size == (28, 28)
    assert sample["sample_idx"] == 3
    assert isinstance(test_split, HFMapDataset)
    with pytest.raises(ValueError, match=r"`split` must be one of \['test', 'train'\], got 'val'"):
        sample_dataset("val")


def test_the_bundled_images_are_those_of_the_source(test_split):
    import gzip
    from pathlib import Path

    import numpy as np

    path = Path("/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz")
    if not path.exists():
        pytest.skip("the package dataset-fashion-mnist is not installed")
    first = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, 28 * 28, 16)
    assert np.array_equal(np.asarray(test_split[0]["image"]).ravel(), first)


def test_batched_reads_equal_single_ones(test_split):
    together = test_split.__getitems__([5, 2, 5])
    for sample, index in zip(together, [5, 2, 5], strict=True):
        assert sample["sample_idx"] == index
        assert sample["label"] == test_split[index]["label"]
        assert sample["image"].tobytes() == test_split[index]["image"].tobytes()


class Counting:
    """A table that counts how often it is asked."""

    def __init__(self, table):
        self.table, self.asked = table, []
        self.column_names = table.column_names

    def __len__(self):
        return len(self.table)

    def __getitem__(self, rows):
        self.asked.append(rows)
        return self.table[rows]


def test_a_batch_asks_the_table_once_and_a_shuffle_copies_nothing():
    dataset = HFMapDataset(made(x=list(range(50))))
    table = dataset.dataset = Counting(dataset.dataset)
    dataset.shuffle(seed=3)
    assert dataset.dataset is table
    assert "sample_idx" not in table.column_names
    batch = dataset.__getitems__([4, 9, 4])
    assert len(table.asked) == 1
    assert [sample["x"] for sample in batch] == [sample["sample_idx"] for sample in batch]
    everything = [dataset[i]["x"] for i in range(50)]
    assert everything != list(range(50))
    assert sorted(everything) == list(range(50))
    assert [sample["x"] for sample in batch] == [everything[i] for i in (4, 9, 4)]


def made(**columns):
    return hf.Dataset.from_dict(columns or {"x": [1, 2, 3], "y": [4, 5, 6]})


def test_columns_are_renamed_and_removed():
    dataset = HFMapDataset(made(), rename_columns={"x": "image"}, remove_columns=["y"])
    assert dataset[1] == {"image": 2, "sample_idx": 1}
    assert dataset.column_names == ["image", "sample_idx"]
    with pytest.raises(ValueError, match=r"`remove_columns` names \['z'\]; the columns are"):
        HFMapDataset(made(), remove_columns=["z"])
    with pytest.raises(ValueError, match=r"`rename_columns` names \['z'\]; the columns are"):
        HFMapDataset(made(), rename_columns={"z": "x"})


def test_a_column_named_sample_idx_is_kept():
    assert HFMapDataset(made(sample_idx=[9, 8]))[0] == {"sample_idx": 9}


def test_a_saved_folder_opens_with_and_without_a_split(tmp_path):
    made().save_to_disk(tmp_path / "one")
    hf.DatasetDict(a=made(), b=made(x=[7])).save_to_disk(tmp_path / "many")
    assert len(HFDataset(str(tmp_path / "one"))) == 3
    assert HFDataset(path=str(tmp_path / "many"), split="b")[0]["x"] == 7
    with pytest.raises(ValueError, match=r"has no split 'c'; it has \['a', 'b'\]"):
        HFDataset(str(tmp_path / "many"), split="c")
    with pytest.raises(ValueError, match=r"has the splits \['a', 'b'\]; choose one with `split=`"):
        HFDataset(str(tmp_path / "many"))
    with pytest.raises(ValueError, match="needs the path of a dataset"):
        HFDataset(3)


def test_local_files_open_and_stream(tmp_path):
    made().to_parquet(tmp_path / "data.parquet")
    files = str(tmp_path / "data.parquet")
    assert len(HFDataset("parquet", data_files=files, split="train")) == 3
    stream = HFDataset(
        "parquet",
        data_files=files,
        split="train",
        streaming=True,
        rename_columns={"y": "label"},
        transform=lambda sample: {**sample, "x": 10 * sample["x"]},
    )
    assert [sample["x"] for sample in stream] == [10, 20, 30]
    assert [sample["label"] for sample in stream] == [4, 5, 6]


def test_a_broken_image_is_named():
    features = hf.Features({"image": hf.Image()})
    rows = {"image": [{"bytes": b"not an image", "path": None}]}
    dataset = HFMapDataset(hf.Dataset.from_dict(rows, features=features))
    with pytest.raises(ValueError, match=r"Sample 0 cannot be decoded: .* \(it holds 'image'\)"):
        dataset[0]
    with pytest.raises(ValueError, match="Sample 0 cannot be decoded"):
        dataset.__getitems__([0])


def test_tuples_get_names():
    dataset = FromTorchDataset([(1, 2), (3, 4)], names=["a", "b"])
    assert dataset[-1] == {"a": 3, "b": 4, "sample_idx": 1}
    assert dataset.column_names == ["a", "b", "sample_idx"]
    assert FromTorchDataset([(1, 2)], ["a", "b"], add_sample_idx=False)[0] == {"a": 1, "b": 2}
    with pytest.raises(ValueError, match=r"`names` has 1 entries.* sample 0 has 2 fields"):
        FromTorchDataset([(1, 2)], names=["a"])[0]


def test_a_subset_is_a_window():
    whole = FromTorchDataset([(i,) for i in range(5)], ["x"], gpu_transform=dict)
    part = Subset(whole, [4, 2])
    assert [part[i]["x"] for i in range(len(part))] == [4, 2]
    assert part.__getitems__([1])[0]["x"] == 2
    assert part.names == ["x"]
    assert part.gpu_transform is dict
    with pytest.raises(IndexError, match=r"rows of a dataset of 5, got \[5\]"):
        Subset(whole, [5])


def test_a_gpu_transform_stays_with_copies_and_not_with_workers():
    dataset = FromTorchDataset([(1,)], ["x"], gpu_transform=dict)
    assert copy.deepcopy(dataset).gpu_transform is dict
    assert copy.copy(dataset).gpu_transform is dict
    assert pickle.loads(pickle.dumps(dataset)).gpu_transform is None
    with pytest.raises(TypeError, match="`gpu_transform` must be callable, got str"):
        Dataset(gpu_transform="crop")


def test_workers_read_what_the_process_reads(test_split):
    dataset = copy.copy(test_split)
    dataset.transform = labels_only
    loader = DataLoader(Subset(dataset, range(20)), batch_size=5, num_workers=2)
    read = torch.cat([batch["label"] for batch in loader])
    assert read.tolist() == test_split.dataset["label"][:20]


def labels_only(sample):
    return {"label": sample["label"]}


def test_a_shuffle_takes_what_the_shuffle_of_a_stream_takes():
    rows = HFMapDataset(hf.Dataset.from_dict({"x": [1, 2, 3]}))
    assert sorted(row["x"] for row in rows.shuffle(seed=1, buffer_size=2)) == [1, 2, 3]
