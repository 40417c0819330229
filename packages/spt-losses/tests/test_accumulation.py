"""Batches per step, set from outside."""

import pytest
import torch
from spt_losses import MoCoLoss
from spt_losses.accumulation import flush_accumulated, set_accumulation
from torch import nn


def test_a_step_of_several_batches_reaches_the_queue_at_its_end():
    module = nn.ModuleDict({"loss": MoCoLoss(8, 2)})
    set_accumulation(module, 2)
    queue = module["loss"].queue
    before = queue.rows.clone()
    z = torch.randn(3, 2)
    module["loss"](z, z)
    assert torch.equal(queue.rows, before)
    module["loss"](z, z)
    assert int(queue.pointer) == 6
    module["loss"](z, z)
    flush_accumulated(module)  # the last step of an epoch has one batch
    assert int(queue.pointer) == 1
    flush_accumulated(module)
    assert int(queue.pointer) == 1


def test_the_number_is_checked():
    with pytest.raises(ValueError, match="`accumulate` must be"):
        set_accumulation(MoCoLoss(8, 2), 0)
