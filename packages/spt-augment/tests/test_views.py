"""Fan-out into views, and where the random numbers come from."""

import pytest
import torch
from spt_augment import (
    GPUCompose,
    GPURandomHorizontalFlip,
    GPURandomResizedCrop,
    MultiView,
    StackedMultiView,
)
from spt_augment._random import drawing


def batch(n=6):
    x = torch.rand(n, 3, 10, 12, generator=torch.Generator().manual_seed(0))
    return {"image": x, "label": torch.arange(n), "path": [str(i) for i in range(n)], "epoch": 3}


def test_stacked_views_share_what_belongs_to_a_sample():
    given = batch()
    out = StackedMultiView(GPURandomResizedCrop(8), n_views=3)(given)
    assert set(out) == {"views", "epoch"}
    assert set(given) == {"image", "label", "path", "epoch"}
    assert len(out["views"]) == 3
    for view in out["views"]:
        assert view["image"].shape == (6, 3, 8, 8)
        assert view["GPURandomResizedCrop"]["box"].shape == (6, 4)
        assert torch.equal(view["label"], given["label"])
        assert view["path"] == given["path"]
    assert not torch.equal(out["views"][0]["image"], out["views"][1]["image"])


def test_a_chain_per_view():
    out = MultiView([GPURandomResizedCrop(8), GPURandomResizedCrop(4)])(batch())
    assert [tuple(view["image"].shape[-2:]) for view in out["views"]] == [(8, 8), (4, 4)]
    assert torch.equal(out["views"][1]["label"], torch.arange(6))


def test_a_batch_without_labels_has_views_without_labels():
    out = StackedMultiView(GPURandomHorizontalFlip())({"image": batch()["image"]})
    assert set(out["views"][0]) == {"image", "GPURandomHorizontalFlip"}


def test_the_key_decides_what_is_drawn_and_the_global_state_is_untouched():
    chain = GPUCompose([GPURandomResizedCrop(8), GPURandomHorizontalFlip()])
    before = torch.get_rng_state()
    results = {}
    for key in [(0, 0, "train", 5), (0, 1, "train", 5), (0, 0, "train", 6), (1, 0, "train", 5)]:
        with drawing(*key):
            results[key] = chain(batch())["image"]
    with drawing(0, 0, "train", 5):
        again = chain(batch())["image"]
    assert torch.equal(again, results[0, 0, "train", 5])
    values = list(results.values())
    for i, first in enumerate(values):
        for second in values[:i]:
            assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


def test_calls_in_a_plain_loop_differ():
    chain = GPURandomResizedCrop(8)
    assert not torch.equal(chain(batch())["image"], chain(batch())["image"])


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="`n_views` must be >= 1, got 0"):
        StackedMultiView(GPURandomHorizontalFlip(), n_views=0)
    with pytest.raises(ValueError, match="`chains` must hold at least one chain"):
        MultiView([])
    with pytest.raises(TypeError, match=r"`transforms\[0\]` must be callable, got int"):
        GPUCompose([3])
    with pytest.raises(TypeError, match="takes a batch dict, got Tensor"):
        GPURandomHorizontalFlip()(torch.ones(2, 3, 4, 4))
