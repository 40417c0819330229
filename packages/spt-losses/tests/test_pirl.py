"""PIRL against its formula with loops; its memory."""

import numpy as np
import pytest
import torch
from spt_losses import PIRLLoss, pirl_loss
from torch.nn import functional as F


def reference(image, patches, index, memory, negatives, temperature, weight):
    """``-log h`` of equation 3 for both terms of equation 5, in NumPy with loops."""
    total = 0.0
    for z, share in ((patches, weight), (image, 1 - weight)):
        for row, own in zip(z / np.linalg.norm(z, axis=1, keepdims=True), index, strict=True):
            positive = np.exp(row @ memory[own] / temperature)
            others = sum(np.exp(row @ memory[k] / temperature) for k in negatives if k != own)
            total -= share * np.log(positive / (positive + others)) / len(z)
    return total


def problem():
    generator = torch.Generator().manual_seed(0)
    image, patches = torch.randn(2, 4, 6, dtype=torch.float64, generator=generator)
    memory = F.normalize(torch.randn(9, 6, dtype=torch.float64, generator=generator), dim=1)
    return image, patches, torch.tensor([3, 0, 8, 3]), memory


@pytest.mark.parametrize("negatives", [None, [0, 5, 5, 3]])
@pytest.mark.parametrize(("temperature", "weight"), [(0.07, 0.5), (1.0, 0.2)])
@pytest.mark.parametrize("chunk_size", [None, 3])
def test_matches_the_formula(negatives, temperature, weight, chunk_size):
    image, patches, index, memory = problem()
    value = pirl_loss(
        image,
        patches,
        index,
        memory,
        negatives=None if negatives is None else torch.tensor(negatives),
        temperature=temperature,
        weight=weight,
        chunk_size=chunk_size,
    )
    drawn = range(9) if negatives is None else negatives
    arrays = [x.numpy() for x in (image, patches, index, memory)]
    expected = reference(*arrays, drawn, temperature, weight)
    assert value.item() == pytest.approx(expected, rel=1e-11)


def test_features_enter_the_memory_after_the_loss():
    image, patches, index, _ = problem()
    loss = PIRLLoss(9, 6).double()
    before = loss.bank.rows.clone()
    assert loss(image, patches, index) == pirl_loss(image, patches, index, before)
    assert not torch.equal(loss.bank.rows[3], before[3])
    assert torch.equal(loss.bank.rows[1], before[1])
    kept = loss.bank.rows.clone()
    loss.eval()(image, patches, index)
    assert torch.equal(loss.bank.rows, kept)


def test_negatives_are_drawn_from_the_whole_memory():
    image, patches, index, _ = problem()
    loss = PIRLLoss(9, 6, num_negatives=5).double().eval()
    assert loss(image, patches, index) == loss(image, patches, index)  # as in evaluation
    loss.draws.train()
    values = {loss(image, patches, index).item() for _ in range(8)}
    assert len(values) > 1
    alone = PIRLLoss(9, 6, num_negatives=9).double().eval()
    assert len({alone(image, patches, index).item() for _ in range(3)}) == 1


def test_an_image_that_is_its_memory_alone_costs_least():
    _, _, index, memory = problem()
    own = memory[index]
    close = pirl_loss(own, own, index, memory, temperature=0.01)
    assert close < 1e-6


def test_wrong_arguments_are_named():
    image, patches, index, memory = problem()
    with pytest.raises(ValueError, match="`image` and `patches` must have the same shape"):
        pirl_loss(image, patches[:3], index, memory)
    with pytest.raises(ValueError, match=r"`index` must lie in \[0, 9\)"):
        pirl_loss(image, patches, index + 1, memory)
    with pytest.raises(ValueError, match=r"`negatives` must lie in \[0, 9\)"):
        pirl_loss(image, patches, index, memory, negatives=torch.tensor([9]))
    with pytest.raises(ValueError, match=r"`weight` must lie in \[0, 1\], got 1.5"):
        PIRLLoss(9, 6, weight=1.5)
