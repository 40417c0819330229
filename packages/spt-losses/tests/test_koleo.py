"""KoLeo against the official codes, the paper's estimator, and duplicates."""

import numpy as np
import pytest
import torch
from spt_losses import KoLeoLoss, koleo_loss


def reference(z, top_k):
    """Minus the mean log distance of unit rows to their nearest others, with loops."""
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    logs = []
    for i in range(len(z)):
        others = sorted(np.linalg.norm(z[i] - z[j]) for j in range(len(z)) if j != i)
        logs += [np.log(d) for d in others[:top_k]]
    return -np.mean(logs)


@pytest.mark.parametrize(("n", "d"), [(2, 3), (5, 2), (16, 8)])
@pytest.mark.parametrize("top_k", [1, 2])
def test_matches_the_paper(n, d, top_k):
    if top_k >= n:
        pytest.skip("not enough rows")
    z = torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    expected = reference(z.numpy(), top_k)
    assert koleo_loss(z, top_k=top_k).item() == pytest.approx(expected, rel=1e-6)


def test_agrees_with_the_official_code(golden):
    g = golden("koleo_a")
    (z,) = g.inputs("z")
    value = KoLeoLoss()(z)
    value.backward()
    g.check("out_loss", value)
    g.check("grad_z", z.grad)


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_agrees_with_dinov3(golden, top_k):
    g = golden("dinov3_koleo_a")
    (z,) = g.inputs("z")
    value = KoLeoLoss(top_k)(z)
    value.backward()
    g.check(f"out_loss_top{top_k}", value)
    g.check(f"grad_z__top{top_k}", z.grad)


def test_agrees_with_lightly():
    lightly = pytest.importorskip("lightly.loss")
    z = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(koleo_loss(z), lightly.KoLeoLoss()(z))


def test_length_does_not_matter_and_a_step_spreads():
    z = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    value = koleo_loss(z)
    lengths = torch.rand(8, 1, dtype=torch.float64) + 0.5
    torch.testing.assert_close(koleo_loss(z * lengths), value)
    (grad,) = torch.autograd.grad(value, z)
    assert koleo_loss(z - 1e-4 * grad) < value


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_duplicates_stay_finite(dtype):
    z = torch.randn(3, 4).to(dtype).repeat(2, 1).requires_grad_()
    value = koleo_loss(z, top_k=2)
    value.backward()
    assert value.isfinite()
    assert z.grad.isfinite().all()


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="KoLeo needs at least 2 samples over all ranks, got 1"):
        koleo_loss(torch.randn(1, 4))
    with pytest.raises(ValueError, match="KoLeo needs at least 4 samples over all ranks, got 3"):
        koleo_loss(torch.randn(3, 4), top_k=3)
    with pytest.raises(ValueError, match="`top_k` must be at least 1, got 0"):
        KoLeoLoss(0)
    with pytest.raises(ValueError, match=r"`z` must have shape \(N, D\)"):
        koleo_loss(torch.randn(2, 3, 4))
