"""MoCo v3 against the official code."""

import pytest
import torch
from spt_losses import MoCoV3Loss, moco_v3_loss


def test_agrees_with_the_official_code(golden):
    g = golden("moco_v3_a")
    q1, q2, k1, k2 = g.inputs("q1", "q2", "k1", "k2")
    loss = MoCoV3Loss(g.param("temperature"))(q1, q2, k1, k2)
    loss.backward()
    g.check("out_loss", loss)
    g.check("grad_q1", q1.grad)
    g.check("grad_q2", q2.grad)
    assert k1.grad is None
    assert k2.grad is None


@pytest.mark.parametrize("chunk_size", [1, 4, 100])
def test_chunks_change_nothing(chunk_size):
    inputs = torch.randn(4, 5, 6, dtype=torch.float64).unbind()
    q = inputs[0].requires_grad_()
    whole, parts = (moco_v3_loss(*inputs, chunk_size=size) for size in (None, chunk_size))
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts, q), torch.autograd.grad(whole, q))


def test_wrong_arguments_are_named():
    z = torch.randn(4, 8)
    with pytest.raises(ValueError, match=r"`q_i` and `k_j` must have the same shape"):
        moco_v3_loss(z, z, z, z[:3])
    with pytest.raises(ValueError, match="`temperature` must be > 0, got -1"):
        MoCoV3Loss(-1.0)
