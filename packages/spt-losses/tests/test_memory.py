"""What losses hold at once: one matrix of similarities, one of moments, no copies of the inputs."""

import pytest
import spt_losses as sl
import torch


def peak_bytes(loss, *inputs):
    """Most bytes alive at once in forward and backward, beside the inputs."""
    loss(*inputs).backward()  # what is made once
    for x in inputs:
        x.grad = None
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        loss(*inputs).backward()
    live = peak = 0
    events = profile.profiler.kineto_results.events()
    for event in sorted(events, key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


def views(n, d, count=2):
    return [torch.randn(n, d, requires_grad=True) for _ in range(count)]


def info_nce(a, b):
    return sl.info_nce_loss(a, b, torch.arange(len(a)))


@pytest.mark.parametrize(
    ("loss", "side"),
    [
        (sl.NTXEntLoss(), 1024),
        (info_nce, 512),
        (sl.CLIPLoss(), 512),
        (sl.DCLLoss(), 1024),
        (sl.MoCoV3Loss().forward, 512),
    ],
    ids=["ntxent", "info_nce", "clip", "dcl", "moco_v3"],
)
def test_one_matrix_of_similarities(loss, side):
    inputs = views(512, 4, 4 if side == 512 and "MoCoV3" in repr(loss) else 2)
    assert peak_bytes(loss, *inputs) < 1.3 * 4 * side**2


@pytest.mark.parametrize("make", [sl.NTXEntLoss, sl.CLIPLoss, sl.DCLLoss])
def test_blocks_take_their_share(make):
    assert peak_bytes(make(chunk_size=32), *views(512, 4)) < 0.25 * 4 * 1024**2


def test_a_mask_costs_its_bits_alone():
    """Where candidates are left out, no matrix of floats marks them."""
    mask = torch.zeros(512, 512, dtype=torch.bool)

    def masked(a, b):
        return sl.info_nce_loss(a, b, torch.arange(len(a)), mask=mask)

    assert peak_bytes(masked, *views(512, 4)) < (1.3 * 4 + 1) * 512**2


@pytest.mark.parametrize("loss", [sl.BarlowTwinsLoss(), sl.VICRegLoss(), sl.TiCoLoss()])
def test_each_matrix_of_moments_is_there_once(loss):
    """VICReg makes those of the views one after the other; TiCo, which is for narrow features, has
    the running one, the batch's and their sum, and a gradient."""
    matrices = 5 if isinstance(loss, sl.TiCoLoss) else 1
    assert peak_bytes(loss, *views(4, 512)) < (matrices + 0.4) * 4 * 512**2


@pytest.mark.parametrize(
    ("loss", "copies"), [(sl.BarlowTwinsLoss(), 3), (sl.VICRegLoss(), 4), (sl.TiCoLoss(), 6)]
)
def test_few_copies_of_the_views_beside_their_gradients(loss, copies):
    n, d = 4096, 32
    assert peak_bytes(loss, *views(n, d)) < (copies + 0.3) * 4 * n * d


def test_sigreg_holds_nothing_of_the_size_of_samples_times_nodes():
    n, slices, nodes = 256, 64, 17
    loss = sl.SlicedEppsPulley(slices, n_points=nodes)
    assert peak_bytes(loss, *views(n, 8, 1)) < 0.7 * 4 * n * slices * nodes
