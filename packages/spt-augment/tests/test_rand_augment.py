"""RandAugment's operations against torchvision's, and that every image has its own."""

import pytest
import torch
from spt_augment import GPURandAugment
from spt_augment._parameters import Parameters
from spt_augment.rand_augment import OPERATIONS

tv = pytest.importorskip("torchvision.transforms.v2")
SIGNED = OPERATIONS[1:10]
NEAREST = tv.InterpolationMode.NEAREST


def images(n=4, h=30, w=42, seed=0):
    return torch.rand(n, 3, h, w, generator=torch.Generator().manual_seed(seed))


def given(operations, strengths):
    draws = {
        "batch_prob": torch.ones(len(operations), dtype=torch.bool),
        "operation": torch.tensor(operations),
        "strength": torch.tensor(strengths),
    }
    return Parameters(draws, draws)


@pytest.mark.parametrize("magnitude", [0, 9, 17, 30])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_torchvisions(name, magnitude):
    oracle = tv.RandAugment(interpolation=NEAREST, num_magnitude_bins=31)
    make, signed = oracle._AUGMENTATION_SPACE[name]
    assert signed == (name in SIGNED)
    number, x = OPERATIONS.index(name), images()
    for sign in (1, -1) if signed else (1,):
        values = make(31, 30, 42)
        value = 0.0 if values is None else sign * float(values[magnitude])
        expected = oracle._apply_image_or_video_transform(
            x.clone(), name, value, interpolation=NEAREST, fill=oracle._fill
        )
        ours = GPURandAugment(1).paint(
            x.clone(), given([[number]] * 4, [[sign * magnitude / 30]] * 4)
        )
        same = (ours - expected).abs() <= 2e-5
        assert same.float().mean() >= (0.995 if number in range(1, 6) else 1), value


def test_images_have_policies_of_their_own():
    x = images(64)
    augment = GPURandAugment(2, 20)
    out = augment({"image": x})
    operations = out["GPURandAugment"]["operation"]
    assert len({tuple(row) for row in operations.tolist()}) > 30
    for i in (0, 7, 33):
        alone = augment.paint(
            x[i : i + 1].clone(),
            given(
                operations[i : i + 1].tolist(),
                out["GPURandAugment"]["strength"][i : i + 1].tolist(),
            ),
        )
        torch.testing.assert_close(out["image"][i : i + 1], alone, atol=1e-6, rtol=0)


def test_draws_are_uniform_over_operations_and_spread_around_the_magnitude():
    drawn = GPURandAugment(2, 9, magnitude_std=1.5).draw(
        20_000, 8, 8, torch.Generator().manual_seed(0)
    )
    counts = torch.bincount(drawn["operation"].flatten(), minlength=14) / 40_000
    assert ((counts - 1 / 14).abs() < 0.006).all()
    size = 30 * drawn["strength"].abs()
    assert size.mean().item() == pytest.approx(9, abs=0.05)
    assert size.std().item() == pytest.approx(1.5, abs=0.05)
    signed = (drawn["operation"] >= 1) & (drawn["operation"] <= 9)
    assert (drawn["strength"][~signed] >= 0).all()
    negative = (drawn["strength"][signed] < 0).float().mean().item()
    assert negative == pytest.approx(0.5, abs=0.02)


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="`n` must be >= 1, got 0"):
        GPURandAugment(0)
    with pytest.raises(ValueError, match=r"`m` must be in \[0, 30\]"):
        GPURandAugment(m=31)
    with pytest.raises(ValueError, match="GPURandAugment needs 3 channels"):
        GPURandAugment()({"image": torch.rand(2, 1, 8, 8)})
