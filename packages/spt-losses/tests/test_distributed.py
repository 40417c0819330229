"""Real process groups: the averaged gradient is that of one process on the whole batch."""

import json
import os
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
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


def worker(rank, counts, folder):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/init", rank=rank, world_size=len(counts)
    )
    for name, loss in LOSSES.items():
        whole = batch(sum(counts))
        share = [view.split(counts)[rank] for view in whole]
        grad, value = gradient(loss, projector(), share)
        dist.all_reduce(grad)
        dist.all_reduce(value)
        if rank == 0:
            torch.save((grad / len(counts), value / len(counts)), f"{folder}/{name}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("counts", [[3, 3], [2, 4, 1, 3]], ids=["2 equal", "4 unequal"])
def test_gradient_of_all_ranks_is_that_of_one_process(counts, tmp_path):
    command = [sys.executable, __file__, json.dumps(counts), str(tmp_path)]
    ranks = [
        subprocess.Popen([*command, str(rank)], stderr=subprocess.PIPE, text=True)
        for rank in range(len(counts))
    ]
    for process in ranks:
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
    for name, loss in LOSSES.items():
        grad, value = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        expected, whole = gradient(loss, projector(), batch(sum(counts)))
        torch.testing.assert_close(grad, expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(value, whole, rtol=1e-9, atol=1e-12)


if __name__ == "__main__":
    worker(int(sys.argv[3]), json.loads(sys.argv[1]), sys.argv[2])
