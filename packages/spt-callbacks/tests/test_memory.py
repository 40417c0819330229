"""Queues for models: rows, order, types, and state."""

import pytest
import torch
from spt_callbacks import OrderedQueue, UnsortedQueue
from torch import nn

KINDS = pytest.mark.parametrize("kind", [OrderedQueue, UnsortedQueue])


@KINDS
@pytest.mark.parametrize("max_length", [1, 4, 7])
def test_the_newest_rows_are_held(kind, max_length):
    queue, seen = kind(max_length), []
    for n in (2, 0, 3, 9, 1):
        x = torch.arange(len(seen), len(seen) + n)[:, None]
        seen += x.tolist()
        held = queue.append(x).tolist()
        newest = seen[-max_length:]
        assert sorted(held) == newest
        assert held == newest or kind is UnsortedQueue
    if kind is OrderedQueue:
        assert sorted(queue.get_unsorted().tolist()) == newest


@KINDS
def test_no_room_gives_the_rows_back(kind):
    x = torch.randn(3, 2)
    queue = kind(0, shape=2)
    assert queue.append(x) is x
    assert queue.get().shape == (0, 2)


@KINDS
def test_types_are_those_of_the_data_and_exact(kind):
    large = torch.tensor([2**53 + 1, -(2**53) - 1])
    assert kind(4).append(large).tolist() == large.tolist()
    assert kind(4, dtype=torch.float16).append(torch.ones(2, 3)).dtype == torch.float16
    assert kind(4, 3).get().shape == (0, 3)


@KINDS
def test_rows_travel_with_the_module_but_are_no_buffers(kind):
    model = nn.ModuleDict({"queue": kind(5)})
    x = torch.randn(7, 2, requires_grad=True)
    assert not model["queue"].append(x).requires_grad
    assert not list(model.buffers())  # which DDP would overwrite by those of rank 0
    for length in (3, 5, 9):
        other = nn.ModuleDict({"queue": kind(length)})
        other.load_state_dict(model.state_dict())
        held, newest = other["queue"].get(), x[2:][-length:]
        assert sorted(held.tolist()) == sorted(newest.tolist())
        assert torch.equal(held, newest) or kind is UnsortedQueue
    assert model.half()["queue"].get().dtype == torch.float16


@KINDS
def test_wrong_settings_and_rows_are_named(kind):
    with pytest.raises(ValueError, match="`max_length` must be >= 0, got -1"):
        kind(-1)
    with pytest.raises(ValueError, match=r"keeps rows of shape \(3,\), got \(2,\)"):
        kind(4, 3).append(torch.ones(1, 2))
