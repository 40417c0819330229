"""Any data set of dicts: webdataset, a folder of images, lists and generators."""

import io
import tarfile

import pytest
import torch
import webdataset
from PIL import Image
from spt_data import FromDictDataset, FromTorchDataset, Loader, transforms
from torchvision.datasets import ImageFolder

# webdataset leaves its tar files to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore:.*FileIO:pytest.PytestUnraisableExceptionWarning")
PLAIN = transforms.Compose(transforms.DecodeImage(), transforms.ToImage(dtype=torch.uint8))


def jpeg(value, size=(8, 8)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (value, 0, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Four tar files of three samples each, as webdataset stores them."""
    folder = tmp_path_factory.mktemp("shards")
    for shard in range(4):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for row in range(3):
                number = 3 * shard + row
                for suffix, content in (("jpg", jpeg(number)), ("cls", str(number).encode())):
                    entry = tarfile.TarInfo(f"{row:04d}.{suffix}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    return folder


def stream(folder, **options):
    tars = [f"{folder}/{i}.tar" for i in range(4)]
    inner = webdataset.WebDataset(tars, shardshuffle=False, empty_check=False)
    return FromDictDataset(inner, rename_columns={"jpg": "image", "cls": "label"}, **options)


def image_and_label(sample):
    sample = PLAIN(sample)
    return {
        "image": sample["image"],
        "label": int(sample["label"]),
        "sample_idx": sample["sample_idx"],
    }


@pytest.mark.parametrize("num_workers", [0, 2])
def test_webdataset_streams_decode_collate_and_have_stable_numbers(shards, num_workers):
    def read():
        loader = Loader(
            stream(shards, transform=image_and_label), batch_size=2, num_workers=num_workers
        )
        batches = list(loader)
        assert batches[0]["image"].shape[1:] == (3, 8, 8)
        assert batches[0]["image"].dtype == torch.uint8
        return {
            int(label): int(number)
            for batch in batches
            for label, number in zip(batch["label"], batch["sample_idx"], strict=True)
        }

    numbers = read()
    assert sorted(numbers) == list(range(12))  # each sample once, whatever the workers
    assert len(set(numbers.values())) == 12
    assert numbers == read()


def test_a_stream_resumes_after_any_batch(shards):
    def loader():
        return Loader(stream(shards, transform=image_and_label), batch_size=2, num_workers=2)

    expected = [batch["label"].tolist() for batch in loader()]
    running = loader()
    batches = iter(running)
    start = [next(batches)["label"].tolist() for _ in range(3)]
    resumed = loader()
    resumed.load_state_dict(running.state_dict())
    assert start + [batch["label"].tolist() for batch in resumed] == expected


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory):
    """Two classes of three JPEGs and a PNG with an alpha channel."""
    folder = tmp_path_factory.mktemp("images")
    for label in ("ant", "bee"):
        (folder / label).mkdir()
        for i in range(3):
            (folder / label / f"{i}.jpg").write_bytes(jpeg(40 * i, (20 + i, 12)))
        Image.new("RGBA", (9, 9)).save(folder / label / "3.png")
    return folder


def test_an_image_folder_is_a_citizen(image_folder):
    chain = transforms.Compose(transforms.Resize((6, 6)), transforms.ToImage(rgb=True))
    dataset = FromTorchDataset(ImageFolder(image_folder), ["image", "label"], transform=chain)
    (batch,) = Loader(dataset, batch_size=8, num_workers=2)
    assert batch["image"].shape == (8, 3, 6, 6)
    assert batch["label"].tolist() == [0] * 4 + [1] * 4
    assert batch["sample_idx"].tolist() == list(range(8))


def test_paths_decode_in_the_transform(image_folder):
    rows = [{"image": str(path)} for path in sorted(image_folder.glob("*/*.jpg"))]
    sample = FromDictDataset(rows, transform=PLAIN)[4]
    assert sample["image"].shape == (3, 12, 21)
    assert sample["sample_idx"] == 4


def numbers():
    return [{"x": i} for i in range(10)]


def test_lists_and_iterables_are_told_apart_and_shared_out():
    assert FromDictDataset(numbers())[-1] == {"x": 9, "sample_idx": 9}
    assert FromDictDataset(numbers())[(3, 1)] == {"x": 3, "sample_idx": 3, "view_idx": 1}

    class Again:
        def __iter__(self):
            return iter(numbers())

    loader = Loader(FromDictDataset(Again()), batch_size=1, num_workers=2)
    batches = list(loader)
    assert sorted(int(batch["x"]) for batch in batches) == list(range(10))
    assert all(int(batch["x"]) == int(batch["sample_idx"]) for batch in batches)


def test_names_come_from_chosen_keys():
    class Named:
        def __iter__(self):
            return iter([{"file": "a", "x": 1}, {"file": "b", "x": 2}])

    first = list(FromDictDataset(Named(), id_key="file"))
    assert first == list(FromDictDataset(Named(), id_key=["file"]))
    assert first[0]["sample_idx"] != first[1]["sample_idx"]
    with pytest.raises(
        KeyError, match=r"`id_key` names \['path'\], but a sample has \['file', 'x'"
    ):
        list(FromDictDataset(Named(), id_key="path"))


def test_mistakes_are_named():
    with pytest.raises(TypeError, match="must have `__getitem__` and `__len__`, or be iterable"):
        FromDictDataset(3)
    with pytest.raises(TypeError, match="iterable again in each epoch, got an iterator"):
        FromDictDataset(iter(numbers()))
    with pytest.raises(TypeError, match="Sample 0 must be a dict, got tuple"):
        FromDictDataset([(1, 2)])[0]
    with pytest.raises(KeyError, match=r"names \['jpg'\], but sample 1 has \['x'\]"):
        FromDictDataset(numbers(), rename_columns={"jpg": "image"})[1]
