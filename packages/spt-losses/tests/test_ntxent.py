"""NT-Xent against the paper's formula, the official code's values, and its own promises."""

from pathlib import Path

import numpy as np
import pytest
import torch
from spt_losses import NTXEntLoss, ntxent_loss
from torch import nn

GOLDEN = Path(__file__).parent / "golden" / "ntxent_a.npz"


def reference(z_i, z_j, temperature):
    """Equation 1 averaged over the 2N views, in NumPy float64 with loops."""
    z = np.concatenate([z_i, z_j]).astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    n = len(z_i)
    total = 0.0
    for a in range(2 * n):
        scores = [np.exp(z[a] @ z[b] / temperature) for b in range(2 * n) if b != a]
        total -= np.log(np.exp(z[a] @ z[(a + n) % (2 * n)] / temperature) / sum(scores))
    return total / (2 * n)


def views(n, d, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, d, dtype=dtype, generator=generator).requires_grad_() for _ in range(2)]


@pytest.mark.parametrize(("n", "d"), [(2, 1), (3, 5), (16, 8)])
@pytest.mark.parametrize("temperature", [0.07, 0.5, 3.0])
def test_matches_the_paper(n, d, temperature):
    z_i, z_j = views(n, d)
    value = ntxent_loss(z_i, z_j, temperature=temperature)
    expected = reference(z_i.detach().numpy(), z_j.detach().numpy(), temperature)
    assert value.item() == pytest.approx(expected, rel=1e-12)


def test_agrees_with_the_official_code():
    golden = np.load(GOLDEN)
    z_i, z_j = (torch.tensor(golden[f"in_z{v}"], requires_grad=True) for v in (1, 2))
    loss = NTXEntLoss(float(golden["param_temperature"]))(z_i, z_j)
    loss.backward()
    assert loss.item() == pytest.approx(float(golden["out_loss_mean"]), rel=1e-10)
    np.testing.assert_allclose(z_i.grad, golden["grad_z1__mean"], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(z_j.grad, golden["grad_z2__mean"], rtol=1e-10, atol=1e-12)


def test_agrees_with_lightly():
    lightly = pytest.importorskip("lightly.loss")
    z_i, z_j = views(9, 7, torch.float32)
    theirs = lightly.NTXentLoss(temperature=0.2)(z_i, z_j)
    assert NTXEntLoss(0.2)(z_i, z_j).item() == pytest.approx(theirs.item(), rel=1e-5)


def test_gradients_are_those_of_the_value():
    z_i, z_j = views(4, 3)
    assert torch.autograd.gradcheck(ntxent_loss, (z_i, z_j))


def test_order_of_samples_and_of_views_does_not_matter():
    z_i, z_j = views(6, 4)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    value = ntxent_loss(z_i, z_j)
    torch.testing.assert_close(ntxent_loss(z_i[order], z_j[order]), value)
    torch.testing.assert_close(ntxent_loss(z_j, z_i), value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    z_i, z_j = (z.detach().to(dtype).requires_grad_() for z in views(16, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = ntxent_loss(z_i, z_j, temperature=0.05)
    loss.backward()
    exact = reference(z_i.detach().double().numpy(), z_j.detach().double().numpy(), 0.05)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact, rel=1e-5)
    assert z_i.grad.isfinite().all()


@pytest.mark.parametrize("temperature", [1e-4, 1e4])
@pytest.mark.parametrize("kind", ["zeros", "equal", "huge"])
def test_degenerate_inputs_stay_finite(kind, temperature):
    z = {
        "zeros": torch.zeros(4, 3),
        "equal": torch.ones(4, 3),
        "huge": torch.full((4, 3), 1e30) * torch.arange(1, 5)[:, None],
    }[kind].requires_grad_()
    loss = ntxent_loss(z, z * 1, temperature=temperature)
    loss.backward()
    assert loss.isfinite()
    assert z.grad.isfinite().all()


def test_compiles_without_a_graph_break():
    z_i, z_j = views(6, 4, torch.float32)
    compiled = torch.compile(ntxent_loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(z_i, z_j), ntxent_loss(z_i, z_j))


@pytest.mark.parametrize(
    ("z_i", "z_j", "message"),
    [
        (torch.randn(4, 8), torch.randn(3, 8), r"same shape, got \(4, 8\) and \(3, 8\)"),
        (torch.randn(8), torch.randn(8), r"`z_i` must have shape \(N, D\).*got \(8,\)"),
        (torch.randn(1, 8), torch.randn(1, 8), "needs at least 2 samples"),
    ],
)
def test_wrong_shapes_are_named(z_i, z_j, message):
    with pytest.raises(ValueError, match=message):
        ntxent_loss(z_i, z_j)


def test_wrong_dtypes_and_temperatures_are_named():
    labels = torch.ones(4, 8, dtype=torch.int64)
    with pytest.raises(TypeError, match="must be of a floating-point dtype, got torch.int64"):
        ntxent_loss(labels, labels)
    for temperature in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="`temperature` must be > 0"):
            NTXEntLoss(temperature)


def test_the_module_is_the_function():
    z_i, z_j = views(5, 4)
    loss = NTXEntLoss(temperature=0.3)
    assert isinstance(loss, nn.Module)
    assert repr(loss) == "NTXEntLoss(temperature=0.3)"
    assert loss(z_i, z_j) == ntxent_loss(z_i, z_j, temperature=0.3)
