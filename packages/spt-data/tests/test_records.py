"""Records, sources and targets, key paths, and annotations that follow the image."""

import pytest
import torch
from PIL import Image
from spt_data import collate, transforms
from spt_data.transforms import Compose
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F


def tensor(h=12, w=10, channels=3):
    pixels = torch.arange(channels * h * w, dtype=torch.float32).view(channels, h, w)
    return pixels / pixels.max()


# class -> how to make it with probability p, shape of its record (None: no record)
RANDOM = {
    "RandomResizedCrop": (lambda p: transforms.RandomResizedCrop(6), (4,)),
    "RandomCrop": (lambda p: transforms.RandomCrop(6, padding=2), (10,)),
    "RandomHorizontalFlip": (lambda p: transforms.RandomHorizontalFlip(p), bool),
    "RandomVerticalFlip": (lambda p: transforms.RandomVerticalFlip(p), bool),
    "RandomRotation": (lambda p: transforms.RandomRotation(20), dict),
    "RandomAffine": (lambda p: transforms.RandomAffine(20, (0.1, 0.1), (0.9, 1.1), 5), (6,)),
    "RandomPerspective": (lambda p: transforms.RandomPerspective(p=p), (8,)),
    "RandomErasing": (lambda p: transforms.RandomErasing(p), (4,)),
    "RandomChannelPermutation": (lambda p: transforms.RandomChannelPermutation(), (3,)),
    "ColorJitter": (lambda p: transforms.ColorJitter(0.4, 0.4, 0.4, 0.1, p=p), (8,)),
    "RandomGrayscale": (lambda p: transforms.RandomGrayscale(p), bool),
    "RandomSolarize": (lambda p: transforms.RandomSolarize(0.5, p), bool),
    "RandomAutocontrast": (lambda p: transforms.RandomAutocontrast(p), bool),
    "RandomEqualize": (lambda p: transforms.RandomEqualize(p), bool),
    "RandomInvert": (lambda p: transforms.RandomInvert(p), bool),
    "RandomPosterize": (lambda p: transforms.RandomPosterize(3, p), (1,)),
    "RandomAdjustSharpness": (lambda p: transforms.RandomAdjustSharpness(2.0, p), (1,)),
    "GaussianBlur": (lambda p: transforms.GaussianBlur(3, p=p), (2,)),
    "GaussianNoise": (lambda p: transforms.GaussianNoise(p=p), (2,)),
    "AdditiveGaussian": (lambda p: transforms.AdditiveGaussian(0.1, p=p), bool),
    "RandAugment": (lambda p: transforms.RandAugment(), (2,)),
}


@pytest.mark.parametrize("name", RANDOM)
def test_a_record_has_one_type_whether_or_not_it_was_applied(name):
    make, expected = RANDOM[name]
    sample = {"image": tensor(), "label": 1}
    applied, skipped = make(1.0)(sample), make(1.0).skip(sample)
    for out in (applied, skipped):
        record = out[name]
        if isinstance(expected, tuple):
            assert record.shape == expected
        else:
            assert type(record) is expected
    assert torch.equal(skipped["image"], sample["image"])
    if name != "RandomResizedCrop" and name != "RandomCrop":
        assert collate([applied, skipped])["image"].shape == (2, 3, 12, 10)
    assert make(0.5).__repr__().startswith(f"{name}(")
    assert sorted(sample) == ["image", "label"]


@pytest.mark.parametrize("name", [name for name in RANDOM if name != "AdditiveGaussian"])
def test_the_target_is_written_even_when_nothing_is_done(name):
    transform = RANDOM[name][0](0.0)
    transform.target = "other"
    out = transform.skip({"image": tensor()})
    assert torch.equal(out["other"], out["image"])


def test_a_single_jitter_has_the_identity_for_the_others():
    record = transforms.ColorJitter(hue=0.1)({"image": tensor()})["ColorJitter"]
    assert record[:3].tolist() == [1, 1, 1]
    assert -0.1 <= record[3] <= 0.1


def test_the_third_use_of_a_class_has_its_own_record():
    flips = Compose(*(transforms.RandomHorizontalFlip(p) for p in (1.0, 0.0, 1.0)))
    out = flips({"image": tensor()})
    names = ["RandomHorizontalFlip", "RandomHorizontalFlip_0", "RandomHorizontalFlip_1"]
    assert [out[name] for name in names] == [True, False, True]


def test_several_sources_share_one_draw():
    keys = ["image", "depth"]
    crop = transforms.RandomResizedCrop(6, source=keys, target=keys)
    image = tensor()
    out = Compose(crop, transforms.RandomHorizontalFlip(source=keys, target=keys))(
        {"image": image, "depth": image.clone()}
    )
    assert torch.equal(out["image"], out["depth"])
    with pytest.raises(ValueError, match=r"RandomResizedCrop failed .* one size \(H, W\), got"):
        crop({"image": image, "depth": tensor(6, 6)})
    with pytest.raises(ValueError, match="`target` must have as many keys as `source`"):
        transforms.RandomGrayscale(source=keys, target="image")


def test_paths_descend_and_leave_the_given_sample_alone():
    sample = {"views": [{"image": tensor()}, {"image": tensor()}], "a.b": 1}
    out = transforms.RandomInvert(1.0, source="views.1.image", target="views.1.image")(sample)
    torch.testing.assert_close(out["views"][1]["image"], 1 - sample["views"][1]["image"])
    assert torch.equal(out["views"][0]["image"], sample["views"][0]["image"])
    assert "RandomInvert" not in sample
    assert transforms.Lambda(len, target="a.b")(sample)["a.b"] == 2
    with pytest.raises(KeyError, match="'views.2.image'; the sample has .*there are 2 entries"):
        transforms.RandomInvert(1.0, source="views.2.image")(sample)


def annotated():
    image = torch.zeros(1, 20, 30)
    image[:, 4:10, 6:18] = 1
    return {
        "image": image,
        "boxes": tv_tensors.BoundingBoxes([[6, 4, 18, 10]], format="XYXY", canvas_size=(20, 30)),
        "nested": {"mask": tv_tensors.Mask((image[0] > 0).to(torch.uint8))},
        "label": 3,
    }


GEOMETRIC = [
    transforms.RandomHorizontalFlip(1.0),
    transforms.RandomVerticalFlip(1.0),
    transforms.Resize((10, 15)),
    transforms.CenterCrop((16, 24)),
    transforms.RandomResizedCrop((16, 24), scale=(0.7, 1.0)),
    transforms.RandomCrop((18, 28)),
    transforms.RandomAffine(0, (0.1, 0.1)),
    transforms.RandomRotation((90, 90), expand=True),
]


@pytest.mark.parametrize("transform", GEOMETRIC, ids=lambda t: type(t).__name__)
def test_boxes_and_masks_follow_the_image(transform):
    with transforms.random_seed(3):
        out = transform(annotated())
    mask, (box,) = out["nested"]["mask"], out["boxes"]
    assert mask.shape[-2:] == out["image"].shape[-2:] == out["boxes"].canvas_size
    bright = out["image"][0] > 0.5
    agreement = (bright == (mask > 0)).float().mean()
    assert agreement > 0.9
    rows, columns = bright.nonzero().T
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    for edge, pixel in zip(box.tolist(), found, strict=True):
        assert abs(edge - float(pixel)) <= 1.5


def test_annotations_of_another_size_are_refused():
    sample = annotated()
    small = transforms.Resize((10, 15), target="small")(sample)
    assert small["boxes"].canvas_size == (20, 30)  # the image stays, so they do
    wrong = {**sample, "image": torch.zeros(1, 10, 10)}
    with pytest.raises(ValueError, match=r"BoundingBoxes of an image of size \(20, 30\)"):
        transforms.RandomHorizontalFlip(1.0)(wrong)


def test_leading_dimensions_are_transformed_together():
    video = torch.rand(5, 3, 12, 10)
    out = transforms.RandomResizedCrop(6)({"image": video})
    top, left, height, width = map(int, out["RandomResizedCrop"])
    expected = F.resized_crop(video[2], top, left, height, width, [6, 6])
    torch.testing.assert_close(out["image"][2], expected)
    assert transforms.Resize(6)({"image": video})["image"].shape == (5, 3, 7, 6)


def test_noise_leaves_the_source_and_is_not_clipped():
    image = torch.ones(3, 4, 4)
    views = transforms.MultiViewTransform([transforms.AdditiveGaussian(0.5)] * 2)(
        {"image": image, "meta": {"tags": []}}
    )["views"]
    assert not torch.equal(views[0]["image"], views[1]["image"])
    assert (image == 1).all()
    assert views[0]["image"].max() > 1
    views[0]["meta"]["tags"].append("a")
    assert views[1]["meta"]["tags"] == []


def test_conditions_and_routes_keep_samples_alike():
    flip = transforms.Conditional(transforms.RandomResizedCrop(12, target="crop"), "wide")
    samples = [{"image": tensor(12, 12), "wide": wide} for wide in (True, False)]
    batch = collate([flip(sample) for sample in samples])
    assert batch["crop"].shape == (2, 3, 12, 12)
    assert batch["RandomResizedCrop"].shape == (2, 4)
    for name, (make, _) in RANDOM.items():  # all of them can be left out
        sample = {"image": tensor(), "flag": False}
        assert name in transforms.Conditional(make(1.0), "flag")(sample)
    route = transforms.RoutingTransform(lambda s: s["label"], [lambda s: {**s, "a": 1}, dict])
    assert route({"label": 0}) == {"label": 0, "a": 1}
    with pytest.raises(KeyError, match="the router chose 5, and `transforms` has 2 entries"):
        route({"label": 5})


def test_a_controlled_transform_repeats_for_its_row():
    noise = transforms.ControlledTransform(transforms.GaussianNoise(p=1.0), seed_offset=4)
    image = tensor()
    before, on_devices = torch.get_rng_state(), len(torch.cuda._queued_calls)
    first, second = (noise({"image": image, "sample_idx": 7})["image"] for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, noise({"image": image, "sample_idx": 8})["image"])
    assert torch.equal(before, torch.get_rng_state())
    assert len(torch.cuda._queued_calls) == on_devices  # torch.manual_seed would add one
    other = transforms.ControlledTransform(noise, key="idx")
    with pytest.raises(KeyError, match="ControlledTransform needs the key 'idx'"):
        other({"image": image})


def test_views_by_number_take_their_own_transform():
    views = transforms.RoundRobinMultiViewTransform(
        [lambda s: {**s, "v": 0}, lambda s: {**s, "v": 1}]
    )
    assert [views({"view_idx": i})["v"] for i in (1, 0, 1, 1)] == [1, 0, 1, 1]
    with pytest.raises(ValueError, match="has 2 transforms, but the sampler gave view 2"):
        views({"view_idx": 2})
    with pytest.raises(KeyError, match=r"pass_view_idx=True\)\) needs the key 'view_idx'"):
        views({"image": 1})


def test_patches_are_filled_and_the_rest_stays():
    image = Image.new("RGB", (21, 16), (255, 255, 255))
    out = transforms.PatchMasking(4, 0.5)({"image": image})
    kept = out["patch_mask"]
    assert kept.shape == (4, 5)
    assert int(kept.sum()) == 10
    pixels = kept.repeat_interleave(4, 0).repeat_interleave(4, 1)
    assert torch.equal(out["image"][:, :, :20] == 1, pixels.expand(3, -1, -1))
    assert (out["image"][:, :, 20] == 1).all()
    assert (image.getpixel((0, 0)), out["image"].dtype) == ((255, 255, 255), torch.float32)
    full = transforms.PatchMasking(4, 1.0, fill_value=0.5)({"image": torch.ones(1, 8, 8)})
    assert (full["image"] == 0.5).all()
    with pytest.raises(ValueError, match=r"`drop_ratio` must be in \[0, 1\], got 1.5"):
        transforms.PatchMasking(4, 1.5)
    with pytest.raises(TypeError, match="PatchMasking failed"):
        transforms.PatchMasking(4)({"image": "text"})


def test_block_masks_of_one_image():
    mask = transforms.ContextTargetsMultiBlockMask(patch_size=1, min_keep=5)
    out = mask({"image": torch.zeros(1, 14, 14)})
    assert out["ContextTargetsMultiBlockMask"].shape == (2, 5, 2)
    seen = set(out["mask_context"].tolist())
    assert len(out["masks_target"]) == 4
    assert len(seen) >= 5
    assert not any(seen & set(target.tolist()) for target in out["masks_target"])
    with pytest.raises(ValueError, match="must be equally many, got 4 and 1"):
        transforms.ContextTargetsMultiBlockMask(target_aspect_ratios=((1.0, 1.0),))
    with pytest.raises(TypeError, match=r"needs a PIL image or a tensor"):
        mask({"image": "text"})
    with pytest.raises(ValueError, match="`min_keep` = 40 patches are not left"):
        transforms.ContextTargetsMultiBlockMask(1, min_keep=40)({"image": torch.zeros(1, 6, 6)})


def test_multi_block_masks_repeat_by_seed_and_keep_a_context():
    from spt_data import multi_block_mask

    first, again, other = (multi_block_mask(14, 14, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert first[0].dtype == torch.int32
    for seed in range(30):
        context, *targets = multi_block_mask(6, 6, min_keep=6, seed=seed)
        assert int((context.bool() & ~torch.stack(targets).bool().any(0)).sum()) >= 6


def test_boxes_of_another_view_stay():
    sample = {"views": [annotated(), annotated()], "boxes": annotated()["boxes"]}
    path = "views.0.image"
    out = transforms.RandomHorizontalFlip(1.0, source=path, target=path)(sample)
    assert not torch.equal(out["views"][0]["boxes"], sample["views"][0]["boxes"])
    assert torch.equal(out["views"][1]["boxes"], sample["views"][1]["boxes"])
    assert torch.equal(out["boxes"], sample["boxes"])
    both = ("views.0.image", "views.1.image")
    out = transforms.RandomHorizontalFlip(1.0, source=both, target=both)(sample)
    assert torch.equal(out["views"][0]["boxes"], out["views"][1]["boxes"])
    assert not torch.equal(out["views"][1]["boxes"], sample["views"][1]["boxes"])


def test_rand_augment_refuses_what_cannot_follow():
    with pytest.raises(ValueError, match="holds BoundingBoxes, which cannot follow"):
        transforms.RandAugment()({"image": tensor(), "boxes": annotated()["boxes"]})
    assert "other" in transforms.RandAugment(target="other")(annotated())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int16])
def test_the_solarize_threshold_follows_the_range_of_integers(dtype):
    most = torch.iinfo(dtype).max
    image = torch.tensor([[[0, most // 4, most]]], dtype=dtype)
    out = transforms.RandomSolarize(0.5, 1.0)({"image": image})["image"]
    assert out.tolist() == [[[0, most // 4, 0]]]
