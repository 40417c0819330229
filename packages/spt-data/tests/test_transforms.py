"""Transforms of a sample: values, modes, views and errors."""

import pytest
import torch
from PIL import Image, ImageFilter
from spt_data import static, transforms
from torch.utils.data import default_collate
from torchvision.transforms.v2 import functional as F


def picture(mode="RGB", size=(12, 10), seed=0):
    pixels = torch.randint(
        0,
        256,
        (3, size[1], size[0]),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(seed),
    )
    return F.to_pil_image(pixels).convert(mode)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK", "LA", "1", "I;16"])
def test_any_mode_becomes_three_channels(mode):
    image = Image.new("I;16", (4, 4)) if mode == "I;16" else picture(mode)
    out = transforms.ToImage(rgb=True)({"image": image})["image"]
    assert out.shape[0] == 3
    assert out.dtype == torch.float32
    assert out.min() >= 0
    assert out.max() <= 1
    expected = F.to_dtype(F.pil_to_tensor(image.convert("RGB")), scale=True)
    torch.testing.assert_close(out, expected)


def test_an_array_keeps_its_layout():
    import numpy as np

    array = np.asarray(picture())
    out = transforms.ToImage()({"image": array})["image"]
    torch.testing.assert_close(out, torch.tensor(array).permute(2, 0, 1) / 255)
    assert type(out) is torch.Tensor


def test_normalisation_needs_both_numbers_and_the_right_channels():
    out = transforms.ToImage(**static.CIFAR10)({"image": picture()})["image"]
    plain = transforms.ToImage()({"image": picture()})["image"]
    mean, std = (torch.tensor(static.CIFAR10[key])[:, None, None] for key in ("mean", "std"))
    torch.testing.assert_close(out, (plain - mean) / std)
    with pytest.raises(ValueError, match="both `mean` and `std` or neither"):
        transforms.ToImage(mean=[0.5])
    with pytest.raises(ValueError, match="`mean` has 3 channels, the image 1"):
        transforms.ToImage(**static.ImageNet)({"image": picture("L")})


def test_a_transform_leaves_the_sample_alone():
    sample = {"image": picture(), "label": 2}
    before = dict(sample)
    chain = transforms.Compose(
        transforms.RGB(),
        transforms.RandomResizedCrop((8, 8), scale=(0.2, 1.0)),
        transforms.RandomHorizontalFlip(),
        transforms.ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8),
        transforms.RandomGrayscale(p=0.2),
        transforms.GaussianBlur(3, p=0.5),
        transforms.RandomSolarize(threshold=0.5, p=0.2),
        transforms.ToImage(**static.ImageNet),
    )
    out = chain(sample)
    assert sample == before
    assert out["image"].shape == (3, 8, 8)
    assert out["label"] == 2
    assert "RandomResizedCrop(" in repr(chain)


def test_resizing():
    sample = {"image": picture()}
    assert transforms.Resize((6, 4))(sample)["image"].size == (4, 6)
    assert transforms.Resize(5)(sample)["image"].size == (6, 5)
    assert transforms.CenterCrop(4)(sample)["image"].size == (4, 4)


@pytest.mark.parametrize("kind", ["pil", "uint8", "float"])
def test_the_solarize_threshold_is_the_same_for_all_kinds(kind):
    image = picture()
    pixels = F.pil_to_tensor(image)
    given = {"pil": image, "uint8": pixels, "float": pixels / 255}[kind]
    out = transforms.RandomSolarize(threshold=0.5, p=1.0)({"image": given})["image"]
    result = F.pil_to_tensor(out) if kind == "pil" else (out * (255 if kind == "float" else 1))
    expected = torch.where(pixels >= 128, 255 - pixels, pixels)
    torch.testing.assert_close(result.round().to(torch.uint8), expected)
    with pytest.raises(ValueError, match="128 of 255 is written 0.5"):
        transforms.RandomSolarize(threshold=128)


def test_the_blur_of_pil_images():
    blur = transforms.PILGaussianBlur(sigma=(1.5, 1.5))
    for mode in ("L", "RGB"):
        image = picture(mode)
        expected = image.filter(ImageFilter.GaussianBlur(1.5))
        assert blur({"image": image})["image"].tobytes() == expected.tobytes()
    assert transforms.PILGaussianBlur(p=0.0)({"image": image})["image"] is image
    with pytest.raises(TypeError, match="needs a PIL image at 'image', got Tensor"):
        blur({"image": torch.ones(3, 4, 4)})
    with pytest.raises(ValueError, match="`sigma` must be a range"):
        transforms.PILGaussianBlur(sigma=(2.0, 1.0))


def test_views_share_nothing_and_collate():
    view = transforms.Compose(transforms.RandomResizedCrop(6), transforms.ToImage())
    both = transforms.MultiViewTransform([view, view])
    batch = default_collate([both({"image": picture(seed=i), "label": i}) for i in range(3)])
    assert [tuple(part["image"].shape) for part in batch["views"]] == [(3, 3, 6, 6)] * 2
    assert batch["views"][0]["label"].tolist() == [0, 1, 2]
    named = transforms.MultiViewTransform({"global": view, "local": view})
    assert set(named({"image": picture()})) == {"global", "local"}
    with pytest.raises(ValueError, match="needs at least one transform"):
        transforms.MultiViewTransform([])


def test_values_can_be_made_from_the_whole_sample_or_by_any_callable():
    make = transforms.Lambda(lambda sample: sample["label"] + 1, target="next")
    assert make({"label": 1}) == {"label": 1, "next": 2}
    wrap = transforms.WrapTorchTransform(str.upper, source="text", target="text")
    assert wrap({"text": "a"}) == {"text": "A"}


def test_mistakes_are_named():
    with pytest.raises(KeyError, match=r"ToImage needs the key 'image'; the sample 4 has \['img'"):
        transforms.ToImage()({"img": 1, "sample_idx": 4})
    with pytest.raises(TypeError, match=r"Argument 0 of Compose must be callable, got list"):
        transforms.Compose([transforms.RGB()])
    with pytest.raises(ValueError, match=r"`p` must be in \[0, 1\], got 2"):
        transforms.RandomHorizontalFlip(p=2)
    with pytest.raises(ValueError, match=r"needs 1 or 3 channels, got \(2, 4, 4\)"):
        transforms.RGB()({"image": torch.ones(2, 4, 4)})
