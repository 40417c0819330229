"""Images that cannot be decoded, odd modes, missing columns, empty splits: named, counted, refused."""

import errno
import io

import datasets as hf
import numpy as np
import pytest
import torch
from loguru import logger
from PIL import Image
from spt_data import (
    CorruptSampleError,
    DataModule,
    FromDictDataset,
    FromTorchDataset,
    HFDataset,
    HFMapDataset,
    Loader,
    RepeatedRandomSampler,
    Subset,
    random_split,
    transforms,
)


def png(value, size=(4, 4)):
    buffer = io.BytesIO()
    Image.new("L", size, value).save(buffer, "PNG")
    return buffer.getvalue()


def pictures(n=10, broken=()):
    cells = [{"bytes": png(i)[:45] if i in broken else png(i), "path": None} for i in range(n)]
    features = hf.Features({"image": hf.Image()})
    return hf.Dataset.from_dict({"image": cells}, features=features)


def to_tensor(sample):
    return transforms.ToImage(dtype=torch.uint8)(sample)


@pytest.fixture
def told():
    """Warnings that are logged."""
    messages = []
    handle = logger.add(lambda message: messages.append(str(message)), level="WARNING")
    yield messages
    logger.remove(handle)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_broken_images_are_skipped_counted_and_reported(num_workers, told):
    dataset = HFMapDataset(pictures(broken={2, 5, 6}), transform=to_tensor, on_error="skip")
    loader = Loader(dataset, batch_size=3, num_workers=num_workers)
    batches = list(loader)
    assert [batch["sample_idx"].tolist() for batch in batches] == [[0, 1], [3, 4], [7, 8], [9]]
    assert dataset.n_skipped == 3
    assert any("3 samples were skipped" in message for message in told)
    list(loader)
    assert dataset.n_skipped == 6
    if num_workers == 0:
        assert any("Skipped: Sample 5 cannot be decoded" in message for message in told)


def test_broken_images_are_errors_by_default():
    dataset = HFMapDataset(pictures(broken={5}), transform=to_tensor)
    with pytest.raises(CorruptSampleError, match="Sample 5 cannot be decoded"):
        list(Loader(dataset, batch_size=5))
    with pytest.raises(CorruptSampleError, match="None of the 2 samples of a batch, .* can be"):
        list(Loader(HFMapDataset(pictures(2, {0, 1}), on_error="skip"), batch_size=2))
    with pytest.raises(ValueError, match="`on_error` must be 'raise' or 'skip', got 'drop'"):
        HFMapDataset(pictures(1), on_error="drop")


def test_only_broken_data_is_skipped():
    def mistaken(sample):
        raise ZeroDivisionError("a mistake in a program")

    dataset = HFMapDataset(pictures(3), transform=mistaken, on_error="skip")
    with pytest.raises(ZeroDivisionError, match="a mistake in a program"):
        list(Loader(dataset, batch_size=3))
    assert dataset.n_skipped == 0


def test_bytes_that_a_transform_decodes_may_be_skipped_too():
    rows = [{"image": png(7)}, {"image": b"nothing"}, {"image": png(9)}]
    chain = transforms.Compose(transforms.DecodeImage(), transforms.ToImage())
    dataset = FromDictDataset(rows, transform=chain, on_error="skip")
    (batch,) = Loader(dataset, batch_size=3)
    assert batch["sample_idx"].tolist() == [0, 2]
    assert dataset.n_skipped == 1
    with pytest.raises(
        CorruptSampleError,
        match=r"DecodeImage failed on sample 1 at 'image': .*has \['image', 'sample_idx'\]",
    ):
        FromDictDataset(rows, transform=chain)[1]
    with pytest.raises(TypeError, match="an encoded image is bytes or a path, got int"):
        transforms.DecodeImage()({"image": 3})


def test_a_large_jpeg_decodes_at_a_part_of_its_size():
    buffer = io.BytesIO()
    Image.new("RGB", (640, 480), (200, 10, 10)).save(buffer, "JPEG")
    small = transforms.DecodeImage(min_side=100)({"image": buffer.getvalue()})["image"]
    assert small.size == (160, 120)
    assert transforms.DecodeImage()({"image": buffer.getvalue()})["image"].size == (640, 480)


def test_sixteen_bits_are_scaled_and_not_clipped():
    ramp = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    deep = Image.fromarray(ramp)
    assert np.asarray(transforms.to_rgb(deep))[0, :, 0].tolist() == [0, 1, 128, 255]
    kept = transforms.ToImage()({"image": deep})["image"]
    torch.testing.assert_close(kept, torch.tensor(ramp[None] / 65535, dtype=torch.float32))
    with pytest.raises(ValueError, match="does not fit into torch.uint8 without a loss"):
        transforms.ToImage(dtype=torch.uint8)({"image": deep})
    wild = Image.fromarray(np.array([[-1.0, 1e6]], dtype=np.float32))
    with pytest.raises(ValueError, match="mode 'F' with values from -1 to 1e.06 has no range"):
        transforms.RGB()({"image": wild})


@pytest.mark.parametrize("mode", ["P", "CMYK"])
def test_modes_that_hold_no_light_need_a_conversion(mode):
    image = Image.new("RGB", (4, 4), (255, 0, 0)).convert(mode)
    with pytest.raises(ValueError, match=f"sample 3 at 'image': a PIL image of mode '{mode}'"):
        transforms.ToImage()({"image": image, "sample_idx": 3})
    red = transforms.ToImage(rgb=True)({"image": image})["image"][:, 0, 0]
    assert red[0] > 0.9
    assert red[1:].max() < 0.1


def test_a_missing_key_names_transform_sample_key_and_keys():
    for transform in (
        transforms.RandomResizedCrop(4), transforms.ToImage(), transforms.RandomMask(),
        transforms.GaussianNoise(), transforms.PatchMasking(),
    ):  # fmt: skip
        name = type(transform).__name__
        with pytest.raises(
            KeyError, match=rf"{name} needs the key 'image'; the sample 8 has \['img"
        ):
            transform({"img": 0, "sample_idx": 8})
    with pytest.raises(TypeError, match=r"ColorJitter failed on sample 1 at 'image': .* got str"):
        transforms.ColorJitter(0.1)({"image": "x", "sample_idx": 1})


def test_columns_and_splits_that_are_not_there(tmp_path):
    hf.DatasetDict(a=hf.Dataset.from_dict({"x": [1]})).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match=r"has no split 'b'; it has \['a'\]"):
        HFDataset(str(tmp_path / "saved"), split="b")
    with pytest.raises(
        ValueError, match=r"`rename_columns` names \['y'\]; the columns are \['x'\]"
    ):
        HFDataset(str(tmp_path / "saved"), split="a", rename_columns={"y": "z"})
    hf.Dataset.from_dict({"x": []}).save_to_disk(tmp_path / "empty")
    with pytest.raises(ValueError, match="has no rows"):
        HFDataset(str(tmp_path / "empty"))


def test_empty_splits_are_refused():
    with pytest.raises(ValueError, match="The dataset of this split is empty: Subset has no rows"):
        Loader(Subset(pictures(3), []), batch_size=2)
    data = DataModule(train={"dataset": FromTorchDataset([], ["x"]), "batch_size": 2})
    with pytest.raises(ValueError, match="is empty: FromTorchDataset has no rows"):
        data.setup("fit")
    with pytest.warns(UserWarning, match="Part 1 of the split is empty"):
        random_split(pictures(3), [3, 0])
    with pytest.raises(ValueError, match="Sum of input lengths does not equal"):
        random_split(pictures(3), [1, 1])


def test_views_must_fit_into_the_batch():
    dataset = FromTorchDataset([(i,) for i in range(4)], ["x"])
    sampler = RepeatedRandomSampler(4, n_views=2)
    with pytest.raises(
        ValueError, match="`batch_size` 3 is no multiple of the sampler's `n_views` = 2"
    ):
        Loader(dataset, batch_size=3, sampler=sampler)


def test_round_robin_views_are_whole_for_any_workers():
    views = transforms.RoundRobinMultiViewTransform(
        [transforms.Lambda(lambda s: 0, target="v"), transforms.Lambda(lambda s: 1, target="v")]
    )
    dataset = FromTorchDataset([(i,) for i in range(6)], ["x"], transform=views)
    sampler = RepeatedRandomSampler(6, n_views=2, pass_view_idx=True)
    loader = Loader(Subset(dataset, range(6)), batch_size=4, sampler=sampler, num_workers=2)
    seen = [
        (int(x), int(v)) for batch in loader for x, v in zip(batch["x"], batch["v"], strict=True)
    ]
    assert sorted(seen) == [(x, v) for x in range(6) for v in range(2)]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ESTALE])
def test_failures_of_the_operating_system_are_no_broken_images(number):
    class Failing(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, row):
            if row:
                raise OSError(number, "the disk, not the image")
            return (1,)

    dataset = FromTorchDataset(Failing(), ["x"], on_error="skip")
    with pytest.raises(OSError, match="the disk, not the image"):
        list(Loader(dataset, batch_size=4))
    assert dataset.n_skipped == 0


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_mode_that_an_operation_does_not_take_is_no_broken_image(mode):
    rows = [{"image": Image.new(mode, (16, 15))}]
    dataset = FromDictDataset(rows, transform=transforms.RandomSolarize(0.5, 1.0), on_error="skip")
    with pytest.raises(ValueError, match="RandomSolarize failed on sample 0") as caught:
        list(Loader(dataset, batch_size=1))
    assert not isinstance(caught.value, CorruptSampleError)


def test_an_image_that_is_read_late_may_be_broken_in_a_transform():
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(
        buffer, "JPEG"
    )
    late = Image.open(io.BytesIO(buffer.getvalue()[:-900]))
    with pytest.raises(CorruptSampleError, match="Resize failed on sample 0"):
        FromDictDataset([{"image": late}], transform=transforms.Resize(8))[0]


def test_other_errors_of_a_transform_are_explained_too():
    class Own(Exception):
        """Of a user's code."""

    def raises(error):
        def fail(value):
            raise error

        return transforms.WrapTorchTransform(fail)

    with pytest.raises(KeyError, match="WrapTorchTransform failed on sample 4 at 'image': 'k'"):
        raises(KeyError("k"))({"image": 0, "sample_idx": 4})
    with pytest.raises(Own) as caught:
        raises(Own("mine"))({"image": 0, "sample_idx": 4})
    assert caught.value.__cause__ is None
    if hasattr(caught.value, "add_note"):
        assert "failed on sample 4" in caught.value.__notes__[0]


@pytest.mark.parametrize("pairs", [False, True])
def test_a_batch_of_broken_images_is_replaced(pairs):
    dataset = HFMapDataset(pictures(5, {1, 2}), transform=to_tensor, on_error="skip")
    batches = list(Loader(dataset, batch_size=1))
    assert [batch["sample_idx"].item() for batch in batches] == [0, 3, 3, 3, 4]
    views = dataset.__getitems__([(2, 0), (2, 1)] if pairs else [2, 2])
    assert [sample["sample_idx"] for sample in views] == [3, 3]


def test_single_samples_are_not_collated():
    loader = Loader(FromTorchDataset([(1.0,), (2.0,)], ["x"]), batch_size=None)
    assert list(loader) == [{"x": 1.0, "sample_idx": 0}, {"x": 2.0, "sample_idx": 1}]


def test_a_wrapper_that_hides_a_dataset_is_told(told):
    parts = [FromTorchDataset([(1.0,)], ["x"], transform=dict) for _ in range(2)]
    Loader(torch.utils.data.ConcatDataset(parts), batch_size=1)
    assert "ConcatDataset hides FromTorchDataset from its loader" in told.pop()
    Loader(Subset(parts[0], [0]), batch_size=1)
    assert not told


def test_a_stream_without_a_length_is_a_split():
    class Endless:
        def __iter__(self):
            return iter([{"x": 1}])

    data = DataModule(train={"dataset": FromDictDataset(Endless()), "batch_size": 1})
    data.setup("fit")
    assert len(list(data.train_dataloader())) == 1


@pytest.mark.parametrize(
    "values",
    [
        torch.tensor([[[0.5, 1.2]]]),
        torch.tensor([[[-0.3, 0.5]]]),
        torch.tensor([[[0.5, float("nan")]]]),
        Image.fromarray(np.array([[0.5, 200.0]], dtype=np.float32)),
    ],
)
def test_floats_outside_their_range_do_not_wrap(values):
    with pytest.raises(ValueError, match=r"do not fit into torch.uint8, which takes 0 to 1"):
        transforms.ToImage(dtype=torch.uint8)({"image": values})


def test_integers_without_a_range_are_refused_or_kept():
    wide = np.array([[[0], [255], [300], [-3]]])
    for dtype in (torch.float32, torch.uint8):
        with pytest.raises(ValueError, match="torch.int64 has no range that maps to"):
            transforms.ToImage(dtype=dtype)({"image": wide})
    with pytest.raises(ValueError, match="from -3 to 300 do not fit into torch.uint8"):
        transforms.ToImage(dtype=torch.uint8, scale=False)({"image": wide})
    kept = transforms.ToImage(scale=False)({"image": wide})["image"]
    assert kept.flatten().tolist() == [0, 255, 300, -3]
    half = transforms.ToImage(dtype=torch.uint8)({"image": torch.tensor([[[0.0, 0.5, 1.0]]])})
    assert half["image"].tolist() == [[[0, 127, 255]]]


def test_sixteen_bits_are_alike_in_both_modes_of_pillow():
    deep = Image.fromarray(np.array([[0, 40000]], dtype=np.int32))
    assert deep.mode == "I"
    plain, rgb = (transforms.ToImage(rgb=rgb)({"image": deep})["image"] for rgb in (False, True))
    assert plain[0, 0, 1] == pytest.approx(40000 / 65535)
    assert rgb[0, 0, 1] == pytest.approx(40000 / 65535, abs=1 / 255)
