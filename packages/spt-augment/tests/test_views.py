"""Fan-out into views, and where the random numbers come from."""

import pytest
import torch
from spt_augment import (
    BatchMultiBlockMask,
    GPUCompose,
    GPURandomHorizontalFlip,
    GPURandomResizedCrop,
    MixBatch,
    MultiView,
    RandomMixupCutmix,
    StackedMultiView,
)
from spt_augment._random import drawing


def batch(n=6):
    x = torch.rand(n, 3, 10, 12, generator=torch.Generator().manual_seed(0))
    return {"image": x, "label": torch.arange(n), "path": [str(i) for i in range(n)], "epoch": 3}


def test_stacked_views_share_what_belongs_to_a_sample():
    given = batch()
    out = StackedMultiView(GPURandomResizedCrop(8), n_views=3)(given)
    assert set(out) == {"views", "label", "path", "epoch"}  # all but the images stays
    assert out["label"] is given["label"]
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


def test_a_dict_with_a_row_per_sample_goes_with_the_views_too():
    given = {**batch(), "meta": {"id": torch.arange(6), "name": list("abcdef")}, "run": {"a": 1}}
    for fan in (
        StackedMultiView(GPURandomHorizontalFlip()),
        MultiView([GPURandomHorizontalFlip()]),
    ):
        for view in fan(given)["views"]:
            assert view["meta"]["id"].tolist() == list(range(6))
            assert view["meta"]["name"] == list("abcdef")
            assert "run" not in view


def test_each_view_has_the_masks_of_its_own_rows():
    chain = GPUCompose([GPURandomResizedCrop(64), BatchMultiBlockMask(8, min_keep=1)])
    views = StackedMultiView(chain, n_views=2)({"image": torch.rand(4, 3, 70, 70)})["views"]
    for view in views:
        assert len(view["masks_target"]) == 4
        assert all(len(target) == 4 for target in view["masks_target"])
        assert len(view["mask_context"]) == 4
    assert not torch.equal(views[0]["mask_context"], views[1]["mask_context"])


def test_what_a_chain_says_of_the_whole_batch_stays_whole():
    def told(given):
        return {**given, "share": torch.tensor(0.5), "kinds": ["a"]}

    for view in StackedMultiView(told)({"image": torch.rand(2, 3, 4, 4)})["views"]:
        assert view["share"] == 0.5
        assert view["kinds"] == ["a"]


def test_labels_that_a_chain_mixes_are_those_of_its_view():
    def mixed():
        return MixBatch(RandomMixupCutmix(6))

    for fan in (StackedMultiView(mixed()), MultiView([mixed(), mixed()])):
        for view in fan(batch())["views"]:
            assert view["label"].shape[1] == 6
            assert view["label"].is_floating_point()


def test_chains_in_a_plain_loop_draw_on_their_own_and_by_the_seed():
    def made():
        return [GPUCompose([GPURandomResizedCrop(8)]) for _ in range(2)]

    torch.manual_seed(1)
    one, two = made()
    x = batch()
    assert not torch.equal(one(x)["image"], two(x)["image"])
    assert not torch.equal(one(x)["image"], one(x)["image"])

    def run(seed):
        torch.manual_seed(seed)
        return torch.stack([chain(x)["image"] for chain in made()])

    del one, two
    first = run(1)
    assert torch.equal(first, run(1))  # also in the same process
    assert not torch.equal(first, run(2))


def test_a_resumed_loop_goes_on_with_the_next_draw():
    chain, x = GPUCompose([GPURandomResizedCrop(8)]), batch()
    chain(x)
    state = chain.state_dict()
    expected = chain(x)["image"]
    torch.manual_seed(99)
    other = GPUCompose([GPURandomResizedCrop(8)])
    other.load_state_dict(state)
    assert torch.equal(other(x)["image"], expected)
