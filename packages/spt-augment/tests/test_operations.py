"""Each operation against torchvision, given the same parameters."""

import pytest
import torch
from spt_augment import (
    GPUColorJitter,
    GPUGaussianBlur,
    GPUNormalize,
    GPURandomGrayscale,
    GPURandomHorizontalFlip,
    GPURandomResizedCrop,
    GPURandomSolarize,
    ToDevice,
)
from spt_augment._inplace import adjust_brightness, adjust_contrast, adjust_hue, adjust_saturation
from spt_augment._resize import crop_resize
from spt_augment.blur import gaussian_blur

tv = pytest.importorskip("torchvision.transforms.v2.functional")
v2 = pytest.importorskip("torchvision.transforms.v2")


def images(n=6, c=3, h=29, w=37, seed=0):
    return torch.rand(n, c, h, w, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(8, 11), (29, 37), (64, 50)])
def test_crop_and_resize_is_torchvisions(size):
    x = images()
    boxes = torch.tensor(
        [
            [0, 0, 29, 37],
            [3, 5, 20, 9],
            [10, 1, 7, 30],
            [0, 30, 1, 7],
            [28, 36, 1, 1],
            [2, 2, 25, 33],
        ]
    )
    ours = crop_resize(x, boxes, size)
    for image, box, result in zip(x, boxes.tolist(), ours, strict=True):
        expected = tv.resized_crop(image, *box, size=list(size), antialias=True)
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("ours", "theirs", "factors"),
    [
        (adjust_brightness, tv.adjust_brightness, [0.0, 0.3, 1.0, 1.7, 2.0, 0.9]),
        (adjust_contrast, tv.adjust_contrast, [0.0, 0.3, 1.0, 1.7, 2.0, 0.9]),
        (adjust_saturation, tv.adjust_saturation, [0.0, 0.3, 1.0, 1.7, 2.0, 0.9]),
        (adjust_hue, tv.adjust_hue, [-0.5, -0.2, 0.0, 0.1, 0.33, 0.5]),
    ],
)
def test_jitter_is_torchvisions(ours, theirs, factors):
    x = images()
    x[0] = 0.4  # a grey image has no hue
    result = ours(x.clone(), torch.tensor(factors).view(-1, 1, 1, 1))
    for image, factor, changed in zip(x, factors, result, strict=True):
        torch.testing.assert_close(changed, theirs(image, factor), atol=2e-5, rtol=0)


def test_blur_is_torchvisions():
    x = images()
    sigma = torch.tensor([0.1, 0.5, 1.0, 1.5, 2.0, 0.7])
    for image, width, blurred in zip(x, sigma, gaussian_blur(x, sigma, (9, 9)), strict=True):
        expected = tv.gaussian_blur(image, [9, 9], [float(width)] * 2)
        torch.testing.assert_close(blurred, expected, atol=1e-5, rtol=0)


def test_pointwise_operations_are_torchvisions():
    x = images()
    batch = {"image": x}
    grey = GPURandomGrayscale(p=1.0)(batch)["image"]
    torch.testing.assert_close(grey, tv.rgb_to_grayscale(x, 3), atol=1e-6, rtol=0)
    solarized = GPURandomSolarize(threshold=0.5, p=1.0)(batch)["image"]
    torch.testing.assert_close(solarized, tv.solarize(x, 0.5))
    flipped = GPURandomHorizontalFlip(p=1.0)(batch)["image"]
    torch.testing.assert_close(flipped, tv.horizontal_flip(x))
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
    normal = GPUNormalize(mean, std)(batch)["image"]
    torch.testing.assert_close(normal, tv.normalize(x, mean, std))
    assert batch["image"] is x


def test_crops_are_distributed_as_torchvisions():
    crop = GPURandomResizedCrop(8, scale=(0.1, 0.9), ratio=(0.5, 2.0))
    ours = crop.draw(4000, 40, 60, torch.Generator().manual_seed(0))["box"].double()
    theirs = v2.RandomResizedCrop(8, scale=(0.1, 0.9), ratio=(0.5, 2.0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [theirs.make_params([torch.empty(3, 40, 60)]) for _ in range(4000)]
    expected = torch.tensor(
        [[p["top"], p["left"], p["height"], p["width"]] for p in drawn], dtype=torch.float64
    )
    torch.testing.assert_close(ours.mean(0), expected.mean(0), rtol=0.05, atol=0.4)
    torch.testing.assert_close(ours.std(0), expected.std(0), rtol=0.06, atol=0.4)
    assert (ours[:, 0] + ours[:, 2] <= 40).all()
    assert (ours[:, 1] + ours[:, 3] <= 60).all()


def test_an_impossible_crop_falls_back_to_the_centre():
    crop = GPURandomResizedCrop(4, scale=(0.9, 1.0), ratio=(3.0, 3.0))
    boxes = crop.draw(3, 30, 30, torch.Generator().manual_seed(0))["box"]
    assert boxes.tolist() == [[10, 0, 10, 30]] * 3


def test_only_a_share_of_the_batch_changes():
    x = images(400, 3, 8, 8)
    for transform, p in [
        (GPURandomHorizontalFlip(0.3), 0.3),
        (GPURandomGrayscale(0.2), 0.2),
        (GPURandomSolarize(0.1, p=0.6), 0.6),
        (GPUColorJitter(0.9, p=0.8), 0.8),
        (GPUGaussianBlur(3, (1.0, 2.0), p=0.5), 0.5),
    ]:
        changed = (transform({"image": x})["image"] != x).flatten(1).any(1).float().mean()
        assert changed.item() == pytest.approx(p, abs=0.08), transform


def test_uint8_is_scaled_and_other_types_refused():
    x = (images() * 255).to(torch.uint8)
    flipped = GPURandomHorizontalFlip(1.0)({"image": x})["image"]
    torch.testing.assert_close(flipped, x.flip(-1).float() / 255)
    with pytest.raises(TypeError, match="float or uint8 images at 'image', got torch.int64"):
        GPURandomHorizontalFlip()({"image": x.long()})
    with pytest.raises(ValueError, match="looks like channels last"):
        GPURandomHorizontalFlip()({"image": x.permute(0, 2, 3, 1)})
    with pytest.raises(ValueError, match=r"shape \(B, C, H, W\) at 'image', got \(3, 29, 37\)"):
        GPURandomHorizontalFlip()({"image": x[0]})
    with pytest.raises(KeyError, match=r"GPURandomHorizontalFlip needs the key 'image'.*'label'"):
        GPURandomHorizontalFlip()({"label": x})
    with pytest.raises(ValueError, match="hue needs 3 channels"):
        GPUColorJitter(hue=0.1)({"image": images(c=1)})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GPURandomResizedCrop(8, scale=(0, 1)), r"`scale` must be a range within \(0, 1\]"),
        (lambda: GPURandomResizedCrop(8, ratio=(2, 1)), "`ratio` must be"),
        (lambda: GPURandomHorizontalFlip(1.2), r"`p` must be in \[0, 1\], got 1.2"),
        (lambda: GPUColorJitter(brightness=-1), "`brightness` must be >= 0"),
        (lambda: GPUColorJitter(hue=0.7), "`hue` must be in"),
        (lambda: GPUGaussianBlur(4), "`kernel_size` must be odd"),
        (lambda: GPUGaussianBlur(3, (0, 1)), "`sigma` must be"),
        (lambda: GPUNormalize([0.5], [0.0]), "`std` above 0"),
        (lambda: GPURandomSolarize(threshold=128), r"`threshold` must be in \[0, 1\], got 128"),
    ],
)
def test_bad_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_blur_wider_than_the_image_is_refused():
    with pytest.raises(ValueError, match="blur of 23 taps needs images of more than 11 pixels"):
        GPUGaussianBlur(23, p=1.0)({"image": images(h=9, w=9)})


def test_to_device_reaches_every_tensor():
    moved = ToDevice("meta")({"a": torch.ones(1), "b": [torch.ones(1), "text"], "c": (1,)})
    assert moved["a"].is_meta
    assert moved["b"][0].is_meta
    assert moved["b"][1] == "text"
    assert moved["c"] == (1,)
