"""Random views: keys, ranges, shapes, recipes; parameters are compared with torchvision in test_parity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import spt_jax as spj
from spt_jax.augment.geometry import central_box, crop_boxes

A = spj.augment
IMAGES = np.random.default_rng(0).random((4, 10, 8, 3), dtype=np.float32)
BATCH = {"image": IMAGES, "label": np.arange(4), "sample_weight": np.ones(4, np.float32)}


def test_two_views_differ_and_repeat_with_their_key():
    transform = jax.jit(A.two_view_transform(6, normalize_output=False))
    out = transform(jax.random.key(0), BATCH)
    first, second = (view["image"] for view in out["views"])
    assert first.shape == (4, 6, 6, 3)
    assert not np.allclose(first, second)
    assert np.array_equal(first, transform(jax.random.key(0), BATCH)["views"][0]["image"])
    assert not np.allclose(first, transform(jax.random.key(1), BATCH)["views"][0]["image"])
    assert np.array_equal(out["views"][1]["label"], np.arange(4))
    assert 0 <= float(first.min()) <= float(first.max()) <= 1


def test_rows_have_parameters_of_their_own():
    same = np.repeat(IMAGES[:1], 8, axis=0)
    views = A.Recipe(6)(jax.random.key(0), same)
    assert len({np.asarray(view).tobytes() for view in views}) > 4


def test_boxes_lie_inside_and_have_the_right_area():
    boxes = np.asarray(crop_boxes(jax.random.key(0), 500, 40, 30, (0.2, 0.5), (0.75, 4 / 3)))
    top, left, height, width = boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 40).all()
    assert (left + width <= 30).all()
    area, aspect = height * width / 1200, width / height
    assert 0.17 < area.min() < 0.25
    assert 0.45 < area.max() < 0.55
    assert 0.7 < aspect.min() < 0.85
    assert 1.2 < aspect.max() < 1.42
    assert central_box(40, 10, (0.75, 4 / 3)) == [13, 0, 13, 10]  # as torchvision's fallback


def test_a_whole_crop_is_a_resize():
    crop = A.random_resized_crop(jax.random.key(0), IMAGES[:, :8], 4, (1.0, 1.0), (1.0, 1.0))
    expected = jax.image.resize(IMAGES[:, :8], (4, 4, 4, 3), "linear")
    np.testing.assert_allclose(crop, expected, atol=1e-5)
    one = A.crop_resize_image(jnp.asarray(IMAGES[0]), 2, 1, 5, 5, 5)
    np.testing.assert_allclose(one, IMAGES[0, 2:7, 1:6], atol=1e-6)


@pytest.mark.parametrize(
    "operation",
    [
        A.random_horizontal_flip,
        A.random_grayscale,
        A.random_solarize,
        lambda key, x, p: A.color_jitter(key, x, p=p),
        lambda key, x, p: A.random_gaussian_blur(key, x, 3, (1.0, 1.0), p),
    ],
)
def test_probabilities(operation):
    images = np.repeat(IMAGES[:1], 400, axis=0)
    for p in (0.0, 0.3, 1.0):
        changed = np.asarray(operation(jax.random.key(0), jnp.asarray(images), p=p))
        share = (np.abs(changed - images).max((1, 2, 3)) > 1e-6).mean()
        assert share == pytest.approx(p, abs=0.08)
    with pytest.raises(ValueError, match=r"`p` must be in \[0, 1\], got 2"):
        operation(jax.random.key(0), jnp.asarray(images), p=2)


def test_short_forms_of_the_recipe():
    key = jax.random.key(0)
    first, second = A.two_crop(key, jnp.asarray(IMAGES), 6, normalize_output=False)
    assert first.shape == second.shape == (4, 6, 6, 3)
    assert not np.allclose(first, second)
    again = A.simclr_view(jax.random.split(key)[0], jnp.asarray(IMAGES), 6, normalize_output=False)
    np.testing.assert_allclose(first, again, atol=1e-6)
    grey = jnp.full((200, 2, 2, 3), 0.5)  # contrast leaves it alone
    shades = np.asarray(A.random_brightness_contrast(key, grey, 0.4, 0.4))[:, 0, 0, 0]
    assert 0.3 <= shades.min() < 0.35
    assert 0.65 < shades.max() <= 0.7
    assert np.allclose(A.random_brightness_contrast(key, grey, 0.0, 0.4), grey, atol=1e-4)


def test_many_crops():
    out = jax.jit(A.multi_crop_transform(8, 4, 3))(jax.random.key(0), BATCH)
    assert [view["image"].shape for view in out["global_views"]] == [(4, 8, 8, 3)] * 2
    assert [view["image"].shape for view in out["local_views"]] == [(4, 4, 4, 3)] * 3
    first, second = A.byol_recipes(32)
    assert (first.blur, first.solarize, second.blur, second.solarize) == (1.0, 0.0, 0.1, 0.2)
    assert A.simclr_recipe(32).jitter == (0.8, 0.8, 0.8, 0.2)


def test_bytes_grey_images_and_evaluation():
    whole = (255 * IMAGES).astype(np.uint8)
    view = A.simclr_view(jax.random.key(0), jnp.asarray(whole), 6, normalize_output=False)
    assert view.dtype == jnp.float32
    assert float(view.max()) <= 1
    grey = A.simclr_view(jax.random.key(0), jnp.asarray(IMAGES[..., :1]), 6, normalize_output=False)
    assert grey.shape == (4, 6, 6, 1)
    with pytest.raises(ValueError, match="the images 1 channels"):
        A.simclr_view(jax.random.key(0), jnp.asarray(IMAGES[..., :1]), 6)
    out = A.eval_transform(5)({"image": whole})
    expected = A.normalize(jax.image.resize(whole / 255.0, (4, 5, 5, 3), "linear"))
    np.testing.assert_allclose(out["image"], expected, atol=1e-4)


def test_the_eval_transform_of_a_module_is_for_evaluation_alone(small):
    module = small.linear(optim=None, eval_transform=lambda b: {**b, "image": b["image"] * 0})
    found = spj.Trainer().validate(module, [small.arrays(4)])
    assert found["validate/loss"] == pytest.approx(float((module.layer.bias[...] ** 2).mean()))
    trainer = spj.Trainer(progress=False)
    trainer.fit(module, [small.arrays(4)])
    assert trainer.callback_metrics["fit/loss"] > 1e-3


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda k, x: A.random_resized_crop(k, x, 4, (0.0, 1.0)), "`scale` must be a range within"),
        (lambda k, x: A.random_resized_crop(k, x, 4, ratio=(2, 1)), "`ratio` must be a range"),
        (lambda k, x: A.gaussian_blur(x, jnp.ones(4), 4), "`kernel_size` must be odd"),
        (lambda k, x: A.gaussian_blur(x, jnp.ones(4), 17), "more than 8 pixels a side"),
        (lambda k, x: A.color_jitter(k, x, hue=0.7), r"`hue` must be in \[0, 0.5\]"),
        (lambda k, x: A.adjust_hue(x[..., :1], 0.1), "change of hue needs 3 channels"),
        (lambda k, x: A.multi_view_transform([]), "`recipes` must hold at least one"),
    ],
)
def test_wrong_settings_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(jax.random.key(0), jnp.asarray(IMAGES))
