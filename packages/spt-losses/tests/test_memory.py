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
    """VICReg makes those of the views one after the other; TiCo has the batch's and the slope."""
    matrices = 2 if isinstance(loss, sl.TiCoLoss) else 1
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


def test_nearest_neighbours_need_no_matrix_of_all_rows():
    n = 2048
    assert peak_bytes(sl.KoLeoLoss(), *views(n, 4, 1)) < 0.4 * 4 * n**2


@pytest.mark.parametrize("views_of_each", [1, 2])
def test_cross_entropy_holds_its_gradient_alone(views_of_each):
    """Formed in forward, and multiplied by the gradient from above in backward."""
    n, k = 1024, 1024
    logits = torch.randn(views_of_each, n, k, requires_grad=True)
    targets = torch.randn(views_of_each, n, k).softmax(-1)

    def loss(logits):
        return sl.dino_loss(logits, targets, skip_same_view=views_of_each > 1)

    assert peak_bytes(loss, logits) < 2.5 * 4 * logits.numel()


def test_sinkhorn_works_in_one_matrix():
    n, k = 1024, 1024
    scores = torch.randn(n, k)
    w = torch.zeros(1, requires_grad=True)
    assert (
        peak_bytes(lambda w: (w * sl.sinkhorn_knopp(scores, 0.1)[0, 0]).sum(), w) < 1.8 * 4 * n * k
    )
