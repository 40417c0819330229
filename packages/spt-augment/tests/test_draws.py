"""The laws of the drawn parameters against torchvision's, from stored statistics."""

import json
from pathlib import Path

import pytest
import torch
from spt_augment import (
    GPUColorJitter,
    GPUGaussianBlur,
    GPURandomAffine,
    GPURandomErasing,
    GPURandomResizedCrop,
)

GOLDEN = json.loads((Path(__file__).parent / "golden" / "aug_draws.json").read_text())
N = 20_000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def check(own, summary):
    """Mean, variance and quantiles, by the rule that comes with the statistics."""
    own = own.double()
    sd = summary["variance"] ** 0.5
    assert abs(own.mean().item() - summary["mean"]) <= 0.04 * sd + 1e-9
    assert own.var().item() == pytest.approx(summary["variance"], rel=0.05, abs=1e-9)
    for level, value in summary["quantiles"].items():
        below = (own < value - 1e-6).double().mean().item()
        within = (own <= value + 1e-6).double().mean().item()
        assert below - 0.022 <= float(level) <= within + 0.022


@pytest.mark.parametrize("name", GOLDEN["random_resized_crop"])
def test_crops(name):
    about = GOLDEN["random_resized_crop"][name]
    crop = GPURandomResizedCrop(8, tuple(about["scale"]), tuple(about["ratio"]))
    height, width = about["height"], about["width"]
    box = crop.draw(N, height, width, generator())["box"].double()
    top, left, h, w = box.T
    stats = next(v for k, v in about.items() if k.startswith("stats") and v["draws"] > N)
    own = {"top": top, "left": left, "height": h, "width": w}
    own |= {"area_fraction": h * w / (height * width), "log_aspect": (w / h).log()}
    for key, values in own.items():
        check(values, stats[key])
    full = {"share_full_height": h == height, "share_full_width": w == width}
    for key, values in full.items():
        assert abs(values.double().mean().item() - stats[key]) <= 0.01


@pytest.mark.parametrize("name", GOLDEN["color_jitter"])
def test_jitter(name):
    about = GOLDEN["color_jitter"][name]
    jitter = GPUColorJitter(**about["arguments"])
    drawn = jitter.draw(N, 8, 8, generator())
    for key in ("brightness", "contrast", "saturation", "hue"):
        summary = about["stats_200000"][key]
        if summary is None:
            assert (drawn[f"{key}_factor"] == (0 if key == "hue" else 1)).all()
        else:
            check(drawn[f"{key}_factor"], summary)


def test_orders_are_equally_likely():
    jitter, g = GPUColorJitter(0.4), generator()
    counts: dict[tuple, int] = {}
    for _ in range(2400):
        order = tuple(jitter.draw(2, 8, 8, g)["order"][0].tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert sum((c - 100) ** 2 / 100 for c in counts.values()) < 60


def test_blur_widths():
    about = GOLDEN["gaussian_blur_sigma"]
    blur = GPUGaussianBlur(3, tuple(about["range"]))
    check(blur.draw(N, 8, 8, generator())["sigma"], about["sigma"])


def test_erased_boxes():
    about = GOLDEN["random_erasing_224"]
    erase = GPURandomErasing(tuple(about["scale"]), tuple(about["ratio"]), p=1.0)
    drawn = erase.draw(N, 224, 224, generator())
    assert drawn["batch_prob"].all()
    top, left, h, w = drawn["box"].double().T
    own = {"top": top, "left": left, "height": h, "width": w}
    own |= {"area_fraction": h * w / 224**2, "aspect_h_over_w": h / w}
    for key, values in own.items():
        check(values, about[key])


def test_a_box_that_cannot_fit_is_not_erased():
    erase = GPURandomErasing((0.9, 1.0), (5.0, 5.0), p=1.0)
    x = torch.rand(3, 3, 8, 8)
    assert torch.equal(erase({"image": x})["image"], x)


def test_affine_parameters():
    about = GOLDEN["random_affine_on_300x200"]
    affine = GPURandomAffine(
        about["degrees"][1], tuple(about["translate"]), tuple(about["scale"]), about["shear"][1]
    )
    drawn = affine.draw(N, 200, 300, generator())
    check(drawn["angle"], about["angle"])
    check(drawn["translation"][:, 0], about["translate_x"])
    check(drawn["translation"][:, 1], about["translate_y"])
    check(drawn["scale"], about["scale_factor"])
    check(drawn["shear"][:, 0], about["shear_x"])
    assert (drawn["shear"][:, 1] == 0).all()
