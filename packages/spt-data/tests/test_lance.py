"""Images stored with Lance."""

import io
import pickle

import datasets as hf
import numpy as np
import pytest
from PIL import Image
from spt_data import CorruptSampleError, Loader, transforms
from spt_data.lance import LanceImageDataset, build_lance_image_dataset

pytest.importorskip("lance")


def source(n=10):
    """Pictures of one level each, depth maps of 16 bits, an empty cell and a label."""

    def cell(image):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return {"bytes": buffer.getvalue(), "path": None}

    depth = [Image.fromarray(np.full((6, 8), 1000 * i + 7, np.uint16)) for i in range(n)]
    columns = {
        "image": [cell(Image.new("RGB", (40, 20), (20 * i, 0, 0))) for i in range(n)],
        "depth": [None if i == 3 else cell(image) for i, image in enumerate(depth)],
        "label": list(range(n)),
    }
    features = {"image": hf.Image(), "depth": hf.Image(), "label": hf.Value("int64")}
    return hf.Dataset.from_dict(columns, features=hf.Features(features))


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    path = tmp_path_factory.mktemp("lance") / "set"
    return build_lance_image_dataset(source(), path, max_size=16, batch_size=4, workers=2)


def test_pictures_are_small_and_depth_keeps_every_bit(stored):
    dataset = LanceImageDataset(stored)
    assert (len(dataset), dataset.image_columns) == (10, ["image", "depth"])
    for row in (0, 4, -1):
        sample = dataset[row]
        number = row % 10
        assert sample["image"].size == (16, 8)
        assert abs(sample["image"].getpixel((5, 5))[0] - 20 * number) <= 4
        assert (np.asarray(sample["depth"]) == 1000 * number + 7).all()
        assert (sample["label"], sample["sample_idx"]) == (number, number)
    assert dataset[3]["depth"] is None


def test_rows_read_together_equal_single_ones(stored):
    dataset = LanceImageDataset(stored, image_format="tensor", columns=["image", "label"])
    for sample, row in zip(dataset.__getitems__([7, 2, 7]), (7, 2, 7), strict=True):
        assert sample["label"] == row
        assert (sample["image"] == dataset[row]["image"]).all()
    assert dataset[0]["image"].shape == (3, 8, 16)


def test_a_loader_reads_it_and_a_copy_opens_it_anew(stored):
    chain = transforms.ToImage(rgb=True)
    dataset = LanceImageDataset(
        stored, columns=["image", "label"], transform=chain, gpu_transform=dict
    )
    assert dataset.gpu_transform is dict
    batches = [batch["label"].tolist() for batch in Loader(dataset, batch_size=5)]
    assert batches == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    copied = pickle.loads(pickle.dumps(dataset))  # as it goes to a worker
    assert copied._table._handles == {}
    assert copied[6]["label"] == 6


def test_widths_and_heights_are_stored_on_request(tmp_path):
    path = build_lance_image_dataset(
        source(5), tmp_path / "set", max_size=16, store_dimensions=True
    )
    dataset = LanceImageDataset(path, columns=["image_width", "image_height", "depth_width"])
    assert [dataset[2][key] for key in dataset.columns] == [16, 8, 8]
    assert dataset[3]["depth_width"] is None


def test_bytes_without_a_type_are_images_and_a_broken_one_is_named(tmp_path):
    cells = [
        cell["bytes"] for cell in source(3).cast_column("image", hf.Image(decode=False))["image"]
    ]
    raw = hf.Dataset.from_dict({"picture": cells, "label": [0, 1, 2], "note": [b"a", b"b", b"c"]})
    dataset = LanceImageDataset(build_lance_image_dataset(raw, tmp_path / "set"))
    assert dataset.image_columns == ["picture"]
    assert (dataset[1]["picture"].size, dataset[1]["note"]) == ((40, 20), b"b")
    broken = hf.Dataset.from_dict({"picture": [*cells[:2], b"no image"]})
    with pytest.raises(CorruptSampleError, match="Sample 2 cannot be decoded"):
        build_lance_image_dataset(broken, tmp_path / "broken")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["set", "set.images.json"]


def test_rows_are_counted_from_the_end_too(stored):
    dataset = LanceImageDataset(stored)
    assert dataset[-1]["sample_idx"] == 9
    assert [row["sample_idx"] for row in dataset.__getitems__([-10, 3])] == [0, 3]
    with pytest.raises(IndexError, match=r"Rows \[-11\] are out of range for 10 rows"):
        dataset[-11]


def test_mistakes_are_named(stored, tmp_path):
    with pytest.raises(FileExistsError, match="use overwrite=True"):
        build_lance_image_dataset(source(), stored)
    with pytest.raises(ValueError, match="`image_format` must be 'webp' or 'jpeg', got 'gif'"):
        build_lance_image_dataset(source(), tmp_path / "a", image_format="gif")
    with pytest.raises(
        ValueError, match=r"`image_columns` \['label'\]: the columns that hold images"
    ):
        build_lance_image_dataset(source(), tmp_path / "a", image_columns=["label"])
    with pytest.raises(ValueError, match=r"columns \['id'\] have names that are set here"):
        build_lance_image_dataset(source().rename_column("label", "id"), tmp_path / "a")
    with pytest.raises(ValueError, match=r"`split` must be one of \['x', 'y'\], got None"):
        build_lance_image_dataset(hf.DatasetDict(x=source(), y=source()), tmp_path / "a")
    with pytest.raises(TypeError, match="`source` must be a Dataset, a DatasetDict or a path"):
        build_lance_image_dataset(3, tmp_path / "a")
    with pytest.raises(FileNotFoundError, match=r"images.json is missing"):
        LanceImageDataset(tmp_path / "b")
    with pytest.raises(ValueError, match=r"`columns` names \['z'\]; there are"):
        LanceImageDataset(stored, columns=["z"])
    with pytest.raises(IndexError, match=r"Rows \[10\] are out of range for 10 rows"):
        LanceImageDataset(stored)[10]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_photographs_stand_as_their_tag_says(tmp_path, kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    picture = Image.new("RGB" if kind == "JPEG" else "RGBA", (40, 16), "red")
    picture.paste("blue", (0, 0, 20, 16))
    buffer = io.BytesIO()
    picture.save(buffer, kind, exif=exif)
    cells = {"image": [{"bytes": buffer.getvalue(), "path": None}]}
    table = hf.Dataset.from_dict(cells, features=hf.Features({"image": hf.Image()}))
    path = build_lance_image_dataset(table, tmp_path / "set", store_dimensions=True)
    (row,) = LanceImageDataset(path)
    expected = table[0]["image"]
    assert row["image"].size == expected.size == (16, 40)
    assert (row["image_width"], row["image_height"]) == (16, 40)
    for place in ((8, 5), (8, 35)):
        wanted = expected.convert("RGB").getpixel(place)
        found = row["image"].convert("RGB").getpixel(place)
        assert max(abs(a - b) for a, b in zip(wanted, found, strict=True)) < 30
