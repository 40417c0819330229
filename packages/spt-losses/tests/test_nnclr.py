"""NNCLR against public code in the paper's form; its support set."""

import pytest
import torch
from spt_losses import NNCLRLoss, nearest_rows, nnclr_loss
from torch.nn import functional as F


def test_agrees_with_public_code(golden):
    g = golden("nnclr_a")
    z1, z2, p1, p2 = g.inputs("z1", "z2", "p1", "p2")
    loss = NNCLRLoss(32, 12, g.param("temperature")).double()
    loss.queue.rows.copy_(g["in_queue"])
    loss.queue.pointer.fill_(g.param("queue_ptr"))
    value = loss(z1, z2, p1, p2)
    value.backward()
    g.check("out_loss", value)
    g.check("grad_p1", p1.grad)
    g.check("grad_p2", p2.grad)
    assert z1.grad is None
    assert z2.grad is None
    g.check("buf_queue_after", loss.queue.rows)
    assert torch.equal(loss.queue.pointer[None], g["buf_ptr_after"])


def test_neighbours_are_those_of_public_code(golden):
    g = golden("nnclr_a")
    for view in (1, 2):
        expected = g["in_queue"][g[f"out_index{view}"]]
        assert torch.equal(nearest_rows(g[f"in_z{view}"], g["in_queue"]), expected)


def test_it_is_two_cross_entropies_of_neighbours_among_predictions():
    nn_i, nn_j, p_i, p_j = torch.randn(4, 6, 5, dtype=torch.float64)
    unit = [F.normalize(x, dim=1) for x in (nn_i, nn_j, p_i, p_j)]
    own = torch.arange(6)
    expected = F.cross_entropy(unit[0] @ unit[3].T / 0.2, own)
    expected = (expected + F.cross_entropy(unit[1] @ unit[2].T / 0.2, own)) / 2
    for chunk_size in (None, 1, 4):
        value = nnclr_loss(nn_i, nn_j, p_i, p_j, temperature=0.2, chunk_size=chunk_size)
        torch.testing.assert_close(value, expected)


def test_no_projection_is_its_own_neighbour():
    z = torch.randn(4, 8)
    loss = NNCLRLoss(16, 8)
    before = loss.queue.rows.clone()
    neighbours = nearest_rows(z, before)
    assert loss(z, z, z, z) == nnclr_loss(neighbours, neighbours, z, z)
    torch.testing.assert_close(nearest_rows(z, loss.queue.rows), F.normalize(z, dim=1))


def test_batches_of_a_step_look_up_one_support_set():
    whole, parts = NNCLRLoss(20, 8), NNCLRLoss(20, 8, accumulate=2)
    for _ in range(2):
        z_i, z_j, p_i, p_j = torch.randn(4, 6, 8)
        support = parts.queue.rows.clone()
        for half in (slice(0, 3), slice(3, 6)):
            expected = nnclr_loss(
                nearest_rows(z_i[half], support),
                nearest_rows(z_j[half], support),
                p_i[half],
                p_j[half],
            )
            assert parts(z_i[half], z_j[half], p_i[half], p_j[half]) == expected
        whole(z_i, z_j, p_i, p_j)
        assert torch.equal(parts.queue.rows, whole.queue.rows)


def test_evaluation_leaves_the_support_set_alone():
    loss = NNCLRLoss(16, 8).eval()
    before = loss.queue.rows.clone()
    loss(*torch.randn(4, 4, 8))
    assert torch.equal(loss.queue.rows, before)


def test_wrong_arguments_are_named():
    z = torch.randn(4, 8)
    with pytest.raises(ValueError, match="`nn_i` and `p_j` must have the same shape"):
        nnclr_loss(z, z, z, z[:3])
    with pytest.raises(ValueError, match="`support` must have width 8"):
        nearest_rows(z, z[:, :7])
    with pytest.raises(ValueError, match="`temperature` must be > 0, got 0"):
        NNCLRLoss(16, 8, 0.0)
