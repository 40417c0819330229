"""Real process groups: the averaged gradient is that of one process on the whole batch."""

import os
import tempfile

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from spt_losses import ntxent_loss

pytestmark = pytest.mark.distributed

LOSSES = {"ntxent": lambda a, b: ntxent_loss(a, b, temperature=0.3)}


def batch(rows):
    generator = torch.Generator().manual_seed(rows)
    return [torch.randn(rows, 6, dtype=torch.float64, generator=generator) for _ in range(2)]


def projector():
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(5, 6, dtype=torch.float64, generator=generator)
    return weight.requires_grad_()


def gradient(loss, weight, views):
    """Gradient of the weights for one process's share of the batch, and the loss."""
    value = loss(*(view @ weight.T for view in views))
    (grad,) = torch.autograd.grad(value, weight)
    return grad, value.detach()


def worker(rank, counts, init, errors):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=init, rank=rank, world_size=len(counts))
    try:
        for name, loss in LOSSES.items():
            whole = batch(sum(counts))
            share = [view.split(counts)[rank] for view in whole]
            weight = projector()
            grad, value = gradient(loss, weight, share)
            dist.all_reduce(grad)
            dist.all_reduce(value)
            grad, value = grad / len(counts), value / len(counts)
            if rank == 0:
                torch.save((grad, value), f"{errors}/{name}.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("counts", [[3, 3], [2, 4, 1, 3]], ids=["2 equal", "4 unequal"])
def test_gradient_of_all_ranks_is_that_of_one_process(counts):
    with tempfile.TemporaryDirectory() as folder:
        init = f"file://{folder}/init"
        mp.spawn(worker, (counts, init, folder), nprocs=len(counts), join=True)
        for name, loss in LOSSES.items():
            grad, value = torch.load(f"{folder}/{name}.pt", weights_only=True)
            expected, whole = gradient(loss, projector(), batch(sum(counts)))
            torch.testing.assert_close(grad, expected, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(value, whole, rtol=1e-9, atol=1e-12)
