"""InfoNCE against torch's cross-entropy; masks, chunks, memory and errors."""

import pytest
import torch
from spt_losses import InfoNCELoss, info_nce_loss
from torch.nn import functional as F

TARGETS = torch.tensor([3, 0, 6, 6])


def pair():
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(n, 5, dtype=torch.float64, generator=generator).requires_grad_() for n in (4, 7)
    ]


def plain(anchor, candidates, scale, mask=None):
    logits = scale * F.normalize(anchor, dim=1) @ F.normalize(candidates, dim=1).T
    if mask is not None:
        logits = logits.masked_fill(mask, -torch.inf)
    return F.cross_entropy(logits, TARGETS)


@pytest.mark.parametrize("chunk_size", [None, 1, 3, 4])
@pytest.mark.parametrize("temperature", [0.07, 2.0])
def test_matches_a_plain_cross_entropy(chunk_size, temperature):
    a, c = pair()
    value = InfoNCELoss(temperature, chunk_size=chunk_size)(a, c, TARGETS)
    expected = plain(a, c, 1 / temperature)
    torch.testing.assert_close(value, expected)
    grads = torch.autograd.grad(value, [a, c])
    torch.testing.assert_close(grads, torch.autograd.grad(expected, [a, c]))


def test_masked_candidates_are_left_out_and_the_positive_stays():
    a, c = pair()
    mask = torch.zeros(4, 7, dtype=torch.bool)
    mask[:, 2] = mask[1, 5] = True
    hides_positive = mask.scatter(1, TARGETS[:, None], True)
    expected = plain(a, c, 10.0, mask)
    torch.testing.assert_close(info_nce_loss(a, c, TARGETS, mask=mask, temperature=0.1), expected)
    value = InfoNCELoss(0.1, chunk_size=2)(a, c, TARGETS, hides_positive)
    torch.testing.assert_close(value, expected)


def test_a_learnable_scale_multiplies_and_gets_its_gradient():
    a, c = pair()
    scale = torch.tensor(7.0, dtype=torch.float64, requires_grad=True)
    value = InfoNCELoss()(a, c, TARGETS, logit_scale=scale)
    expected = plain(a, c, scale)
    torch.testing.assert_close(value, expected)
    grads = torch.autograd.grad(value, [a, c, scale])
    torch.testing.assert_close(grads, torch.autograd.grad(expected, [a, c, scale]))


def test_a_second_derivative_is_refused():
    a, c = pair()
    value = info_nce_loss(a, c, TARGETS)
    with pytest.raises(RuntimeError, match="can be differentiated once"):
        torch.autograd.grad(value, a, create_graph=True)


def test_one_matrix_of_similarities_is_held():
    n, d = 512, 8
    a, c = (torch.randn(n, d, requires_grad=True) for _ in range(2))
    held = peak_bytes(lambda: info_nce_loss(a, c, torch.arange(n)).backward())
    in_chunks = peak_bytes(lambda: info_nce_loss(a, c, torch.arange(n), chunk_size=64).backward())
    matrix = 4 * n * n
    assert held < 1.5 * matrix
    assert in_chunks < 0.5 * matrix


def peak_bytes(function):
    """Largest sum of live allocations that the profiler saw."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        function()
    live = peak = 0
    events = profile.profiler.kineto_results.events()
    for event in sorted(events, key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


def test_compiles_without_a_graph_break():
    a, c = pair()
    compiled = torch.compile(info_nce_loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(a, c, TARGETS), info_nce_loss(a, c, TARGETS))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"targets": TARGETS + 1}, ValueError, r"`targets` must lie in \[0, 7\).*from 1 to 7"),
        ({"targets": TARGETS[:3]}, ValueError, r"`targets` must have shape \(4,\), got \(3,\)"),
        ({"targets": TARGETS.int()}, TypeError, "`targets` must be of dtype torch.int64"),
        ({"candidates": torch.randn(7, 4)}, ValueError, r"same width, got \(4, 5\) and \(7, 4\)"),
        (
            {"mask": torch.zeros(4, 6, dtype=torch.bool)},
            ValueError,
            r"`mask` must have shape \(4, 7\)",
        ),
        ({"mask": torch.zeros(4, 7)}, TypeError, "`mask` must be of dtype torch.bool"),
        ({"temperature": 0.0}, ValueError, "`temperature` must be > 0"),
    ],
)
def test_wrong_arguments_are_named(change, error, message):
    a, c = pair()
    with pytest.raises(error, match=message):
        info_nce_loss(**{"anchor": a, "candidates": c, "targets": TARGETS, **change})
