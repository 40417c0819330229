"""The queue: order, wrapping, accumulation, state, and no copy of its content."""

import pytest
import torch
from spt_losses import FeatureQueue
from torch.nn import functional as F


def batches(*sizes, dim=3):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, dim, generator=generator) for n in sizes]


@pytest.mark.parametrize("sizes", [(2, 2), (3, 3, 3), (5,), (4, 2, 13), (1, 11)])
def test_it_holds_the_newest_rows_where_a_list_would(sizes):
    queue = FeatureQueue(5, 3)
    content = list(queue.rows.clone())
    place = 0
    for rows in batches(*sizes):
        queue.push(rows)
        for row in F.normalize(rows, dim=1):
            content[place % 5] = row
            place += 1
        torch.testing.assert_close(queue.rows, torch.stack(content))
        assert queue.pointer == place % 5


def test_rows_are_written_in_place():
    queue = FeatureQueue(100, 3)
    address = queue.rows.data_ptr()
    before = queue.rows[7:].clone()
    queue.push(*batches(7))
    assert queue.rows.data_ptr() == address
    assert torch.equal(queue.rows[7:], before)


def test_batches_of_a_step_enter_together():
    parts = batches(2, 2, 2, 2)
    whole, split = FeatureQueue(6, 3), FeatureQueue(6, 3, accumulate=2)
    for index in (0, 2):
        before = split.rows.clone()
        split.push(parts[index])
        assert torch.equal(split.rows, before)
        split.push(parts[index + 1])
        whole.push(torch.cat(parts[index : index + 2]))
        assert torch.equal(split.rows, whole.rows)
        assert split.pointer == whole.pointer


def test_a_short_last_window_can_be_closed():
    queue, direct = FeatureQueue(6, 3, accumulate=4), FeatureQueue(6, 3)
    (rows,) = batches(2)
    queue.push(rows)
    queue.flush()
    queue.flush()  # nothing waits any more
    direct.push(rows)
    assert torch.equal(queue.rows, direct.rows)


def test_content_and_position_are_saved():
    queue, other = FeatureQueue(5, 3), FeatureQueue(5, 3, seed=1)
    first, second = batches(3, 4)
    queue.push(first)
    other.load_state_dict(queue.state_dict())
    queue.push(second)
    other.push(second)
    assert torch.equal(queue.rows, other.rows)
    assert queue.pointer == other.pointer == 2


def test_the_first_content_is_that_of_the_seed_alone():
    torch.manual_seed(1)
    one = FeatureQueue(5, 3)
    state = torch.get_rng_state()
    two = FeatureQueue(5, 3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.rows, two.rows)
    torch.testing.assert_close(one.rows.norm(dim=1), torch.ones(5))


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"`rows` must have width 3, got shape \(2, 4\)"):
        FeatureQueue(5, 3).push(torch.randn(2, 4))
    with pytest.raises(ValueError, match="`length` must be at least 1, got 0"):
        FeatureQueue(0, 3)
    with pytest.raises(ValueError, match="`accumulate` must be at least 1, got 0"):
        FeatureQueue(5, 3, accumulate=0)
