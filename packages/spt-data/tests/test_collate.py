"""Samples to batches: views, masks, boxes, similarities and what cannot be stacked."""

import pytest
import torch
from PIL import Image
from spt_data import Collator, MixCollator, MultiBlockCollator, apply_masks, collate, transforms
from spt_data.mixing import cut_box, soft_labels
from torch.utils.data import default_collate
from torchvision import tv_tensors


def sample(i, **extra):
    return {"image": torch.full((3, 8, 8), float(i)), "label": i % 2, "sample_idx": i, **extra}


def test_plain_samples_collate_as_in_torch():
    samples = [sample(i, record={"angle": 0.5}, flag=True, name="a") for i in range(3)]
    ours, theirs = collate(samples), default_collate(samples)
    assert ours.keys() == theirs.keys()
    assert torch.equal(ours["image"], theirs["image"])
    assert ours["record"]["angle"].dtype == theirs["record"]["angle"].dtype
    assert ours["flag"].tolist() == [True] * 3
    assert ours["name"] == ["a"] * 3


def test_one_collate_takes_every_form():
    views = [{"views": [sample(i), sample(i)]} for i in range(4)]
    named = [{"global_1": sample(i), "local_1": sample(i)} for i in range(4)]
    for collator in (collate, Collator()):
        assert collator([sample(i) for i in range(4)])["image"].shape == (4, 3, 8, 8)
        assert [view["image"].shape[0] for view in collator(views)["views"]] == [4, 4]
        assert collator(named)["local_1"]["label"].tolist() == [0, 1, 0, 1]


def test_boxes_stay_lists():
    boxes = [
        tv_tensors.BoundingBoxes(torch.zeros(n, 4), format="XYXY", canvas_size=(8, 8))
        for n in (1, 3)
    ]
    batch = collate([sample(0, boxes=boxes[0]), sample(1, boxes=boxes[1])])
    assert [len(entry) for entry in batch["boxes"]] == [1, 3]


def test_lists_of_images_are_flattened_by_sample():
    samples = [{"image": [torch.tensor([i]), torch.tensor([i + 10])], "label": i} for i in (1, 2)]
    batch = Collator()(samples)
    assert batch["image"].flatten().tolist() == [1, 11, 2, 12]
    assert batch["label"].tolist() == [1, 2]


def test_similarities():
    labels = Collator(G_from="label")([sample(i) for i in range(3)])["G"]
    assert labels.tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    assert labels.dtype == torch.float32
    halves = [{**sample(i), "image": sample(i)["image"].half()} for i in range(2)]
    assert Collator(G_from="label")(halves)["G"].dtype == torch.float16
    fields = [sample(i, text=torch.tensor([[1.0, i], [0.0, 2.0]])) for i in range(2)]
    assert Collator(G_from="text")(fields)["G"].tolist() == [[5, 5], [5, 6]]
    with pytest.raises(KeyError, match="Collator needs the key 'text'"):
        Collator(G_from="text")([sample(0)])


def test_masks_of_a_batch_share_their_lengths_and_follow_from_the_samples():
    collator = MultiBlockCollator(patch_size=1, min_keep=4)
    draw = transforms.DrawSeed()
    samples = [draw({"image": torch.zeros(1, 14, 14), "label": i}) for i in range(5)]
    first, second = collator(samples), collator(samples)
    assert torch.equal(first["mask_context"], second["mask_context"])
    assert "mask_seed" not in first
    assert len({target.shape for target in first["masks_target"]}) == 1
    assert first["mask_context"].shape[1] >= 4
    other = collator([draw(sample) for sample in samples])
    assert any(
        a.shape != b.shape or not torch.equal(a, b)
        for a, b in zip(first["masks_target"], other["masks_target"], strict=True)
    )
    tokens = apply_masks(torch.rand(5, 196, 3), *first["masks_target"])
    assert tokens.shape == (20, first["masks_target"][0].shape[1], 3)
    with pytest.raises(ValueError, match="needs at least one mask, all of one shape"):
        apply_masks(torch.rand(5, 196, 3))


def test_soft_labels_sum_to_one():
    soft = soft_labels(torch.tensor([0, 2]), 4, 0.1)
    torch.testing.assert_close(soft.sum(1), torch.ones(2))
    torch.testing.assert_close(soft[1, 2], torch.tensor(1 - 0.1 + 0.1 / 4))


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_labels_mix_as_the_images_do(mixup, cutmix):
    """Image i is the constant i, so its mean is the mixed class."""
    mix = MixCollator(6, mixup, cutmix, label_smoothing=0.0)
    samples = [{"image": torch.full((1, 16, 16), float(i)), "label": i} for i in range(6)]
    with transforms.random_seed(0):
        batches = [mix(samples) for _ in range(30)]
    for batch in batches:
        expected = batch["label"] @ torch.arange(6.0)
        torch.testing.assert_close(batch["image"].mean((1, 2, 3)), expected)
    cut = [bool((batch["image"] == batch["image"].round()).all()) for batch in batches]
    assert sum(cut) == {(0.8, 0.0): 0, (0.0, 1.0): 30}.get((mixup, cutmix), sum(cut))
    if mixup and cutmix:
        assert 5 < sum(cut) < 25
    assert samples[0]["image"].max() == 0  # the caller's images stay


def test_mixing_follows_from_the_samples():
    draw = transforms.DrawSeed("mix_seed")
    samples = [draw(sample(i)) for i in range(4)]
    mix = MixCollator(2)
    assert torch.equal(mix(samples)["image"], mix(samples)["image"])
    assert not torch.equal(mix(samples)["image"], mix([draw(s) for s in samples])["image"])
    untouched = MixCollator(2, prob=0.0)(samples)
    assert torch.equal(untouched["image"], collate(samples)["image"])
    assert "mix_seed" not in untouched
    for _ in range(20):
        top, bottom, left, right = cut_box(8, 4, 0.5)
        assert 0 <= top <= bottom <= 8
        assert 0 <= left <= right <= 4


def test_mistakes_are_named():
    with pytest.raises(
        ValueError, match=r"stacked at 'image': sample 3 holds .*\(3, 8, 8\), sample 4"
    ):
        collate([sample(3), {**sample(4), "image": torch.zeros(3, 8, 9)}])
    with pytest.raises(ValueError, match=r"same keys: sample 2 has .*'extra'.*, sample 1 has"):
        collate([sample(1), sample(2, extra=1)])
    with pytest.raises(ValueError, match=r"same keys at 'views.0': sample 8 has"):
        collate([{"views": [sample(7)]}, {"views": [sample(8, extra=1)]}])
    with pytest.raises(ValueError, match="cannot be stacked at 'image': sample 0 holds"):
        collate([{**sample(0), "image": Image.new("L", (2, 2))}])
    with pytest.raises(ValueError, match=r"`prob` must be in \[0, 1\], got 2"):
        MixCollator(2, prob=2)
    with pytest.raises(ValueError, match="one of them positive, got 0 and 0"):
        MixCollator(2, mixup_alpha=0, cutmix_alpha=0)


def test_a_column_may_be_called_views():
    assert collate([{"views": 3}, {"views": 4}])["views"].tolist() == [3, 4]


@pytest.mark.parametrize("alphas", [(0.8, 0.0), (0.0, 1.0)])
def test_bytes_are_not_mixed(alphas):
    samples = [{"image": torch.zeros(3, 4, 4, dtype=torch.uint8), "label": i} for i in range(2)]
    with pytest.raises(ValueError, match="needs images of a float type, got torch.uint8"):
        MixCollator(2, *alphas)(samples)
