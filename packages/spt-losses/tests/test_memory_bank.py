"""The memory of PIRL: moving averages by image, accumulation and state."""

import pytest
import torch
from spt_losses import MemoryBank
from torch.nn import functional as F


def test_slots_move_towards_new_features():
    bank = MemoryBank(5, 3, momentum=0.75)
    before = bank.rows.clone()
    features, index = torch.randn(2, 3), torch.tensor([4, 1])
    bank.push(features, index)
    moved = F.normalize(0.75 * before[index] + 0.25 * F.normalize(features, dim=1), dim=1)
    torch.testing.assert_close(bank.rows[index], moved)
    untouched = torch.tensor([0, 2, 3])
    assert torch.equal(bank.rows[untouched], before[untouched])


def test_an_image_that_comes_twice_counts_with_its_mean():
    bank = MemoryBank(5, 2, momentum=0.0)
    bank.push(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), torch.tensor([3, 3, 0]))
    torch.testing.assert_close(bank.rows[3], torch.full((2,), 0.5**0.5))
    torch.testing.assert_close(bank.rows[0], torch.tensor([0.0, 1.0]))


def test_batches_of_a_step_enter_together():
    features, index = torch.randn(6, 3), torch.tensor([0, 1, 2, 1, 4, 0])
    whole, parts = MemoryBank(5, 3), MemoryBank(5, 3, accumulate=2)
    whole.push(features, index)
    before = parts.rows.clone()
    parts.push(features[:3], index[:3])
    assert torch.equal(parts.rows, before)
    parts.push(features[3:], index[3:])
    torch.testing.assert_close(parts.rows, whole.rows)


def test_it_is_saved():
    bank, other = MemoryBank(5, 3), MemoryBank(5, 3, seed=1)
    bank.push(torch.randn(2, 3), torch.tensor([4, 1]))
    other.load_state_dict(bank.state_dict())
    assert torch.equal(bank.rows, other.rows)


def test_wrong_arguments_are_named():
    bank = MemoryBank(5, 3)
    with pytest.raises(ValueError, match=r"`index` must lie in \[0, 5\).*from 1 to 5"):
        bank.push(torch.randn(2, 3), torch.tensor([1, 5]))
    with pytest.raises(ValueError, match="`features` must have width 3"):
        bank.push(torch.randn(2, 4), torch.tensor([1, 2]))
    with pytest.raises(ValueError, match=r"`momentum` must lie in \[0, 1\], got 2"):
        MemoryBank(5, 3, momentum=2.0)
