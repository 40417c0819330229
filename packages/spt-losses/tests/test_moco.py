"""MoCo against the official code's steps and a plain cross-entropy; its queue."""

import pytest
import torch
from spt_losses import MoCoLoss, moco_loss
from torch.nn import functional as F


def test_agrees_with_the_official_code_step_by_step(golden):
    g = golden("moco_v2_queue_a")
    loss = MoCoLoss(24, 12, g.param("temperature")).double()
    loss.queue.rows.copy_(g["in_queue"].T)
    loss.queue.pointer.fill_(g.param("queue_ptr"))
    queries, keys = g.inputs("q", "k")
    values, contents, pointers = [], [], []
    for q, k in zip(queries, keys, strict=True):
        values.append(loss(q, k))
        contents.append(loss.queue.rows.T.clone())
        pointers.append(loss.queue.pointer.clone()[None])
    sum(values).backward()
    g.check("out_loss", torch.stack(values))
    g.check("buf_queue_after", torch.stack(contents))
    assert torch.equal(torch.stack(pointers), g["buf_ptr_after"])
    g.check("grad_q", queries.grad)
    assert keys.grad is None  # detached


@pytest.mark.parametrize("chunk_size", [None, 1, 4, 100])
@pytest.mark.parametrize("temperature", [0.07, 2.0])
def test_matches_a_plain_cross_entropy(chunk_size, temperature):
    q, k = torch.randn(2, 6, 4, dtype=torch.float64)
    q.requires_grad_()
    queue = F.normalize(torch.randn(9, 4, dtype=torch.float64), dim=1)
    unit_q, unit_k = F.normalize(q, dim=1), F.normalize(k, dim=1)
    logits = torch.cat([(unit_q * unit_k).sum(1, keepdim=True), unit_q @ queue.T], dim=1)
    expected = F.cross_entropy(logits / temperature, torch.zeros(6, dtype=torch.int64))
    value = moco_loss(q, k, queue, temperature=temperature, chunk_size=chunk_size)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.autograd.grad(value, q), torch.autograd.grad(expected, q))


def test_no_query_meets_its_own_key():
    q, k = torch.randn(2, 4, 8)
    loss = MoCoLoss(16, 8)
    before = loss.queue.rows.clone()
    assert loss(q, k) == moco_loss(q, k, before)
    torch.testing.assert_close(loss.queue.rows[:4], F.normalize(k, dim=1))


def test_evaluation_leaves_the_queue_alone():
    loss = MoCoLoss(16, 8).eval()
    before = loss.queue.rows.clone()
    loss(*torch.randn(2, 4, 8))
    assert torch.equal(loss.queue.rows, before)
    assert loss.queue.pointer == 0


def test_accumulated_batches_are_one_large_batch():
    whole, parts = MoCoLoss(20, 8).double(), MoCoLoss(20, 8, accumulate=3).double()
    encoder = torch.eye(8, dtype=torch.float64).requires_grad_()
    for _ in range(3):
        q, k = torch.randn(2, 12, 8, dtype=torch.float64)
        expected = torch.autograd.grad(whole(q @ encoder, k), encoder)[0]
        summed = sum(
            torch.autograd.grad(parts(a @ encoder, b) / 3, encoder)[0]
            for a, b in zip(q.split(4), k.split(4), strict=True)
        )
        torch.testing.assert_close(summed, expected)
        assert torch.equal(parts.queue.rows, whole.queue.rows)


@pytest.mark.parametrize("temperature", [1e-4, 1e4])
def test_extreme_temperatures_stay_finite(temperature):
    q, k = torch.randn(2, 4, 8)
    q.requires_grad_()
    value = MoCoLoss(16, 8, temperature)(q, k)
    value.backward()
    assert value.isfinite()
    assert q.grad.isfinite().all()


def test_wrong_arguments_are_named():
    q = torch.randn(4, 8)
    with pytest.raises(ValueError, match="`query` and `key` must have the same shape"):
        moco_loss(q, q[:3], q)
    with pytest.raises(ValueError, match=r"`queue` must have width 8, got shape \(4, 7\)"):
        moco_loss(q, q, q[:, :7])
    with pytest.raises(ValueError, match="`temperature` must be > 0, got 0"):
        MoCoLoss(16, 8, 0.0)
