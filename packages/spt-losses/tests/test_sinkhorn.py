"""Sinkhorn-Knopp against plain matrix scaling, the official codes, and any temperature."""

import pytest
import torch
from spt_losses import sinkhorn_knopp


def reference(scores, temp, rounds):
    """Prototypes to 1/K, samples to 1/N, in turn, in float64."""
    q = (scores / temp).exp().T
    q = q / q.sum()
    k, n = q.shape
    for _ in range(rounds):
        q = q / q.sum(1, keepdim=True) / k
        q = q / q.sum(0, keepdim=True) / n
    return (q * n).T


@pytest.mark.parametrize(("n", "k"), [(1, 1), (5, 3), (4, 9), (32, 16)])
@pytest.mark.parametrize("rounds", [1, 3, 20])
def test_matches_plain_matrix_scaling(n, k, rounds):
    scores = torch.randn(n, k, dtype=torch.float64)
    value = sinkhorn_knopp(scores, 0.3, n_iterations=rounds)
    torch.testing.assert_close(value, reference(scores, 0.3, rounds), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["swav_a", "swav_multicrop_a"])
def test_agrees_with_the_official_code(golden, name):
    g = golden(name)
    unit = [torch.nn.functional.normalize(g[f"in_{x}"], dim=-1) for x in ("z", "prototypes")]
    scores = unit[0][:, :2] @ unit[1].T
    for view in range(2):
        codes = sinkhorn_knopp(scores[0, view], g.param("epsilon"), None, 3)
        error = (codes - g["out_codes"][0, view]).abs().max()
        assert error < 1e-10


def test_many_rounds_use_all_prototypes_equally():
    q = sinkhorn_knopp(torch.randn(60, 4, dtype=torch.float64), 0.5, n_iterations=200)
    torch.testing.assert_close(q.sum(1), torch.ones(60, dtype=torch.float64))
    torch.testing.assert_close(q.sum(0), torch.full((4,), 15.0, dtype=torch.float64))


def test_the_number_of_samples_cancels():
    scores = torch.randn(6, 4)
    assert torch.equal(sinkhorn_knopp(scores, 0.1, 6), sinkhorn_knopp(scores, 0.1, torch.tensor(9)))


@pytest.mark.parametrize("temp", [1e-6, 1e-3, 0.04, 1e6])
@pytest.mark.parametrize("sigma", [1.0, 100.0])
def test_no_temperature_overflows(temp, sigma):
    scores = sigma * torch.randn(64, 32)
    q = sinkhorn_knopp(scores, temp)
    assert q.isfinite().all()
    torch.testing.assert_close(q.sum(1), torch.ones(64))
    exact = sinkhorn_knopp(scores.double(), temp)
    if sigma / temp < 1e5:  # beyond it float32 cannot hold the scores themselves
        torch.testing.assert_close(q, exact.float(), rtol=1e-2, atol=1e-4)


def test_half_precision_and_autocast_give_float32():
    scores = torch.randn(6, 4, dtype=torch.float16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = sinkhorn_knopp(scores, 0.05)
    assert q.dtype == torch.float32
    torch.testing.assert_close(q, sinkhorn_knopp(scores.float(), 0.05))


def test_the_scores_are_left_alone_and_get_no_gradient():
    scores = torch.randn(6, 4, requires_grad=True)
    before = scores.detach().clone()
    assert not sinkhorn_knopp(scores, 0.05).requires_grad
    assert torch.equal(scores, before)


def test_it_compiles_without_a_graph_break():
    torch.compiler.reset()
    compiled = torch.compile(sinkhorn_knopp, fullgraph=True, backend="aot_eager")
    scores = torch.randn(6, 4)
    torch.testing.assert_close(compiled(scores, 0.05), sinkhorn_knopp(scores, 0.05))


def test_no_samples_are_no_codes():
    assert sinkhorn_knopp(torch.empty(0, 4), 0.1).shape == (0, 4)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"`teacher_output` must have shape \(N, K\)"):
        sinkhorn_knopp(torch.randn(2, 3, 4), 0.1)
    with pytest.raises(ValueError, match="`teacher_temp` must be > 0, got 0"):
        sinkhorn_knopp(torch.randn(3, 4), 0.0)
    with pytest.raises(ValueError, match="`n_iterations` must be at least 1, got 0"):
        sinkhorn_knopp(torch.randn(3, 4), 0.1, n_iterations=0)
    with pytest.raises(TypeError, match="`teacher_output` must be of a floating-point dtype"):
        sinkhorn_knopp(torch.ones(3, 4, dtype=torch.int64), 0.1)
