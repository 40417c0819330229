"""kornia's modules in a chain: same draws for the same key, global state untouched."""

import pytest
import torch
from spt_augment import GPUCompose, GPUKornia, GPURandomHorizontalFlip
from spt_augment._random import drawing

K = pytest.importorskip("kornia.augmentation")


def test_kornia_draws_by_the_key_and_leaves_the_global_state():
    x = (torch.rand(6, 3, 16, 16) * 255).to(torch.uint8)
    chain = GPUCompose([GPUKornia(K.RandomVerticalFlip(), K.RandomRotation(20.0))])
    state = torch.get_rng_state()
    results = []
    for key in (0, 0, 1):
        with drawing("kornia", key):
            results.append(chain({"image": x})["image"])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_it_keeps_its_place_among_others():
    x = torch.rand(2, 3, 4, 4)
    chain = GPUCompose([GPURandomHorizontalFlip(1.0), GPUKornia(K.RandomVerticalFlip(p=1.0))])
    torch.testing.assert_close(chain({"image": x})["image"], x.flip(-1, -2))
    with pytest.raises(ValueError, match="GPUKornia needs at least one module"):
        GPUKornia()
