"""Mixup, CutMix and erasing on a batch."""

import pytest
import torch
from spt_augment import GPUCompose, GPURandomErasing, MixBatch, RandomMixupCutmix
from spt_augment._random import drawing

N, K = 8, 5


def batch():
    """Image ``i`` is constant ``i / N``, so a pixel tells which images it was mixed of."""
    values = torch.arange(N).float() / N
    return values.view(N, 1, 1, 1).expand(N, 3, 12, 16).clone(), torch.arange(N) % K


def call(mix, key=0):
    x, y = batch()
    with drawing("mix test", key):
        return mix(x, y)


def test_mixup_mixes_images_and_labels_by_one_share():
    mix = RandomMixupCutmix(K, cutmix_alpha=0, label_smoothing=0.0)
    x, y = batch()
    shares = []
    for key in range(6):
        images, soft = call(mix, key)
        assert torch.equal(x, batch()[0])
        torch.testing.assert_close(soft.sum(1), torch.ones(N))
        ok = 0
        for i in range(N):
            # image i is s * i + (1 - s) * j for some j with label y[j]
            for j in range(N):
                if i == j or images[i, 0, 0, 0] == x[i, 0, 0, 0]:
                    continue
                share = (images[i, 0, 0, 0] * N - j) / (i - j)
                expected = torch.zeros(K)
                expected[y[i]] += share
                expected[y[j]] += 1 - share
                if torch.allclose(soft[i], expected, atol=1e-4) and 0 <= share <= 1:
                    ok += 1
                    shares.append(round(share.item(), 3))
                    break
            else:
                ok += int(torch.allclose(images[i], x[i]))
        assert ok == N
    assert len(set(shares)) > 3


def test_cutmix_pastes_a_rectangle_and_counts_its_area():
    mix = RandomMixupCutmix(K, mixup_alpha=0, label_smoothing=0.0)
    areas = set()
    for key in range(10):
        x, y = batch()
        images, soft = call(mix, key)
        assert torch.equal(x, batch()[0])
        for i in range(N):
            other = images[i] != x[i]
            area = other[0].float().mean().item()
            rows, columns = other[0].any(1), other[0].any(0)
            assert torch.equal(other[0], rows[:, None] & columns[None])
            if area == 0:
                continue
            j = round(images[i][other].unique().item() * N)
            expected = torch.zeros(K)
            expected[y[i]] += 1 - area
            expected[y[j]] += area
            torch.testing.assert_close(soft[i], expected, atol=1e-5, rtol=0)
            areas.add(area)
    assert len(areas) > 4


def test_switching_and_smoothing():
    mix = RandomMixupCutmix(K, switch_prob=0.3, prob=0.8, label_smoothing=0.1)
    kinds = {"none": 0, "cut": 0, "mix": 0}
    x, _ = batch()
    for key in range(400):
        images, soft = call(mix, key)
        whole = (images == images[:, :, :1, :1]).all()
        changed = not torch.equal(images, x)
        kinds["cut" if not whole else "mix" if changed else "none"] += 1
    assert kinds["mix"] / 400 == pytest.approx(0.8 * 0.7, abs=0.1)
    assert kinds["cut"] / 400 == pytest.approx(0.8 * 0.3, abs=0.1)
    never = RandomMixupCutmix(K, prob=0.0, label_smoothing=0.1)
    images, soft = call(never)
    assert torch.equal(images, x)
    assert soft[1, 1].item() == pytest.approx(0.9 + 0.1 / K)
    assert soft[1, 0].item() == pytest.approx(0.1 / K)


def test_the_share_is_beta_distributed():
    mix = RandomMixupCutmix(2, mixup_alpha=0.8, cutmix_alpha=0, label_smoothing=0.0)
    x, y = torch.zeros(2, 1, 1, 1), torch.tensor([0, 1])
    shares = []
    for key in range(3000):
        with drawing("beta", key):
            _, soft = mix(x, y)
        if soft[0, 1] > 0:  # the partner was the other one
            shares.append(soft[0, 0].item())
    shares = torch.tensor(shares)
    assert shares.mean().item() == pytest.approx(0.5, abs=0.04)
    assert shares.var().item() == pytest.approx(1 / (4 * (2 * 0.8 + 1)), rel=0.08)


def test_a_resumed_run_goes_on_with_the_next_draw():
    first, second = RandomMixupCutmix(K), RandomMixupCutmix(K)
    x, y = batch()
    first(x, y)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x, y)[0], second(x, y)[0])


def test_as_a_step_of_a_chain():
    x, y = batch()
    out = MixBatch(RandomMixupCutmix(K))({"image": x, "label": y})
    assert out["label"].shape == (N, K)
    with pytest.raises(KeyError, match="MixBatch needs the key 'label'; the batch holds"):
        MixBatch(RandomMixupCutmix(K))({"image": x})
    with pytest.raises(ValueError, match=r"`labels` must be 8 class numbers, shape \(8,\)"):
        RandomMixupCutmix(K)(x, torch.rand(N, K))
    with pytest.raises(ValueError, match="must be >= 0 and one of them above 0"):
        RandomMixupCutmix(K, 0, 0)


def test_erased_pixels_are_the_value_and_only_in_the_box():
    x = torch.rand(200, 3, 20, 24)
    out = GPURandomErasing(p=0.5, value=[2.0, 3.0, 4.0])({"image": x})
    share = out["GPURandomErasing"]["batch_prob"].float().mean().item()
    assert share == pytest.approx(0.5, abs=0.15)
    for before, after, box in zip(x, out["image"], out["GPURandomErasing"]["box"], strict=True):
        top, left, h, w = box.tolist()
        expected = before.clone()
        expected[:, top : top + h, left : left + w] = torch.tensor([2.0, 3.0, 4.0]).view(3, 1, 1)
        assert torch.equal(after, expected)


def test_random_erasing_fills_with_noise_of_its_own_generator():
    x = torch.zeros(50, 3, 32, 32)
    state = torch.get_rng_state()
    out = GPURandomErasing(p=1.0, value="random")({"image": x})["image"]
    assert torch.equal(torch.get_rng_state(), state)
    noise = out[out != 0]
    assert noise.mean().item() == pytest.approx(0, abs=0.05)
    assert noise.std().item() == pytest.approx(1, abs=0.05)
    with pytest.raises(ValueError, match="`value` must be numbers or 'random', got 'pixel'"):
        GPURandomErasing(value="pixel")
    with pytest.raises(ValueError, match="one number or 3, one per channel"):
        GPURandomErasing(value=[1.0, 2.0], p=1.0)({"image": x})


@pytest.mark.parametrize("fuse", [True, False])
def test_noise_that_erases_is_each_images_own_whatever_the_pieces(fuse):
    """Large images pass a processor one by one; the noise is that of the whole batch."""
    erase = GPURandomErasing(value="random", p=0.8, scale=(0.5, 0.6))
    with drawing(0):
        out = GPUCompose([erase], fuse=fuse, compile=False)({"image": torch.zeros(4, 3, 256, 256)})
    with drawing(0):
        expected = erase({"image": torch.zeros(4, 3, 256, 256)})["image"]
    assert torch.equal(out["image"], expected)
    painted = [image[image != 0][:1000] for image in expected if image.any()]
    assert len(painted) > 1
    assert not torch.equal(painted[0], painted[1])
