"""Recipes: numbers of the papers, shapes, and what a batch of each holds."""

import pytest
import torch
from PIL import Image
from spt_data import FromTorchDataset, Loader, recipes, transforms
from torchvision.transforms.v2 import functional as F


def picture(mode="RGB", size=(50, 40)):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, size[1], size[0]), dtype=torch.uint8, generator=generator)
    return F.to_pil_image(pixels).convert(mode)


def options(name):
    return {"num_classes": 10} if name == "deit" else {}


def images_of(batch):
    if "views" in batch:
        return [view["image"] for view in batch["views"]]
    if "image" in batch:
        return [batch["image"]]
    return [view["image"] for view in batch.values()]


# views of the paper: number of global and local ones, lowest area share of both
PAPER = {
    "simclr": (2, 0, 0.08, None), "simclr_cifar": (2, 0, 0.08, None),
    "moco_v2": (2, 0, 0.2, None), "moco_v3": (2, 0, 0.08, None), "byol": (2, 0, 0.08, None),
    "barlow_twins": (2, 0, 0.08, None), "vicreg": (2, 0, 0.08, None),
    "swav": (2, 6, 0.14, 0.05), "dino": (2, 8, 0.4, 0.05), "dinov2": (2, 8, 0.32, 0.05),
    "lejepa": (2, 6, 0.3, 0.05), "mae": (1, 0, 0.2, None), "ijepa": (1, 0, 0.3, None), "beit": (1, 0, 0.08, None),
    "deit": (1, 0, 0.08, None),
}  # fmt: skip


def test_all_recipes_are_there():
    assert set(PAPER) == set(recipes.NAMES)
    assert all(callable(getattr(recipes, name)) for name in recipes.NAMES)


@pytest.mark.parametrize("name", PAPER)
def test_a_batch_has_the_views_of_the_paper(name):
    size = 224 if name in ("beit", "ijepa") else 32  # their blocks need a grid
    preset = getattr(recipes, name)(size=size, local_size=16, **options(name))
    modes = ["RGB", "L", "P", "RGBA"]
    dataset = FromTorchDataset(
        [(picture(mode), i) for i, mode in enumerate(modes)], ["image", "label"], transform=preset
    )
    loader = Loader(dataset, batch_size=4, collate_fn=preset.collate, seed=1)
    batch = next(iter(loader))
    n_global, n_local, low, low_local = PAPER[name]
    shapes = [tuple(image.shape) for image in images_of(batch)]
    assert shapes == [(4, 3, size, size)] * n_global + [(4, 3, 16, 16)] * n_local
    assert all(image.dtype == torch.float32 for image in images_of(batch))
    views = preset.recipe.views
    assert views[0].crop_scale[0] == low
    assert low_local is None or views[-1].crop_scale[0] == low_local
    again = next(iter(Loader(dataset, batch_size=4, collate_fn=preset.collate, seed=1)))
    for one, other in zip(images_of(batch), images_of(again), strict=True):
        assert torch.equal(one, other)


def test_masks_and_mixing_come_with_their_recipes():
    sample = {"image": picture(), "label": 3}
    mae = recipes.mae()(sample)
    assert (len(mae["mask_visible"]), len(mae["mask_masked"])) == (49, 147)
    beit = recipes.beit()(sample)
    assert beit["mask"].shape == (14, 14)
    assert 60 <= int(beit["mask"].sum()) <= 75
    ijepa = recipes.ijepa()
    batch = ijepa.collate([ijepa(sample) for _ in range(3)])
    assert len(batch["masks_target"]) == 4
    assert batch["mask_context"].shape[0] == 3
    deit = recipes.deit(num_classes=5, size=32)
    batch = deit.collate([deit({**sample, "label": i}) for i in range(4)])
    torch.testing.assert_close(batch["label"].sum(1), torch.ones(4))


@pytest.mark.parametrize("name", ["byol", "barlow_twins", "dino"])
def test_the_two_views_differ_as_published(name):
    first, second = recipes.preset(name).recipe.views[:2]
    assert (first.blur_p, second.blur_p) == (1.0, 0.1)
    assert (first.solarize_p, second.solarize_p) == (0.0, 0.2)


def test_tensors_and_bytes():
    image = F.pil_to_tensor(picture())
    views = recipes.byol(size=24, as_bytes=True)({"image": image})["views"]
    assert [view["image"].dtype for view in views] == [torch.uint8] * 2
    assert {key for key in views[0] if "Blur" in key} == {"GaussianBlur"}
    pil = recipes.byol(size=24, as_bytes=True)({"image": picture()})["views"]
    assert {key for key in pil[0] if "Blur" in key} == {"PILGaussianBlur"}
    assert pil[0]["image"].dtype == torch.uint8


def test_evaluation_and_the_device_keep_the_aspect():
    wide = Image.new("RGB", (80, 40), (255, 0, 0))
    wide.paste((0, 0, 255), (0, 0, 20, 40))
    out = recipes.evaluation(size=16, resize=20)({"image": wide})["image"]
    assert out.shape == (3, 16, 16)
    red = (torch.tensor([1.0, 0.0, 0.0]) - torch.tensor(recipes.IMAGENET_MEAN)) / torch.tensor(
        recipes.IMAGENET_STD
    )
    torch.testing.assert_close(out[:, 8, 8], red, atol=1e-5, rtol=0)
    assert recipes.evaluation()({"image": wide})["image"].shape == (3, 224, 224)
    raw = recipes.for_device(32)({"image": wide})["image"]
    assert (raw.shape, raw.dtype) == ((3, 32, 32), torch.uint8)
    assert raw[2].max() < 64  # a squeezed image would show the blue quarter


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="Unknown recipe 'dyno'; there are"):
        recipes.preset("dyno")
    with pytest.raises(ValueError, match=r"recipes.deit\(num_classes=1000\)"):
        recipes.deit()
    with pytest.raises(ValueError, match="erases or mixes normalised images"):
        recipes.deit(num_classes=2, as_bytes=True)
    with pytest.raises(KeyError, match="RGB needs the key 'image'; the sample 2 has"):
        recipes.simclr()({"img": picture(), "sample_idx": 2})
    assert "Preset('mae'" in repr(recipes.mae())
    assert isinstance(transforms.to_rgb(picture("L")), Image.Image)
