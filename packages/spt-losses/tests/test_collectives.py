"""The collectives of one rank; those of several are tested through the losses."""

import pytest
import torch
import torch.distributed as dist
from spt_losses import _distributed as ranks

pytestmark = pytest.mark.distributed


@pytest.fixture
def group(tmp_path, request):
    backend = getattr(request, "param", "gloo")
    if backend == "nccl" and not torch.cuda.is_available():
        pytest.skip("nccl needs a GPU")
    dist.init_process_group(backend, init_method=f"file://{tmp_path}/init", rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


def test_without_a_group_nothing_is_done():
    x = torch.randn(3, 2)
    assert ranks.row_counts(x) == [3]
    assert ranks.gather_rows(x) is x
    assert ranks.sum_over_ranks(x) is x


def test_numbers_of_the_host_use_the_group_that_takes_them(group):
    assert ranks._host_group() is group


def test_beside_a_group_of_devices_one_of_gloo_is_made_once(group, monkeypatch):
    monkeypatch.setattr(dist, "get_backend_config", lambda _: "cuda:nccl")
    host = ranks._host_group()
    assert host is not group
    assert ranks._host_group() is host
    assert dist.get_backend(host) == "gloo"


@pytest.mark.parametrize("group", ["nccl"], indirect=True)
def test_beside_nccl_numbers_stay_on_the_host(group):
    count = torch.ones(1, dtype=torch.int64)
    dist.all_reduce(count, group=ranks._host_group())
    assert count.item() == 1
