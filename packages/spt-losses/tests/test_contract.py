"""What all losses have in common."""

import pytest
import torch
from torch import nn

pytestmark = pytest.mark.slow


def prepared(case, cases, dtype=torch.float64, transform=lambda x: x, through=None):
    """A loss and its inputs; parameters of the loss in the inputs' precision."""
    torch.manual_seed(3)
    loss = case.loss()
    if isinstance(loss, nn.Module) and dtype is not torch.float64:
        loss = loss.float()
    inputs = []
    for x in cases.make_inputs(case):
        value = transform(x.value) if x.grad else x.value
        if value.is_floating_point():
            value = value.to(through or dtype).to(dtype)
        inputs.append(value.clone().requires_grad_(x.grad))
    return loss, inputs


def leaves(inputs):
    return [x for x in inputs if x.requires_grad]


def test_value_is_a_finite_scalar_and_inputs_stay_as_they_are(case, cases):
    loss, inputs = prepared(case, cases)
    before = [x.detach().clone() for x in inputs]
    value = loss(*inputs)
    value.backward()
    assert value.shape == ()
    assert value.isfinite()
    for x in leaves(inputs):
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert x.grad.abs().max() > 0
    for x, old in zip(inputs, before, strict=True):
        torch.testing.assert_close(x.detach(), old, rtol=0, atol=0)


def test_gradients_are_those_of_the_value(case, cases):
    _, inputs = prepared(case, cases)
    free = leaves([x for index, x in enumerate(inputs) if index not in case.held])

    def value(*_):
        torch.manual_seed(3)
        return case.loss()(*inputs)

    assert torch.autograd.gradcheck(value, free, eps=1e-6, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(case, cases, dtype):
    loss, inputs = prepared(case, cases, dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.manual_seed(4)
        value = loss(*inputs)
    value.backward()
    wide, exact = prepared(case, cases, torch.float32, through=dtype)
    torch.manual_seed(4)
    expected = wide(*exact)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    for x in leaves(inputs):
        assert x.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["zeros", "equal", "duplicates"])
def test_degenerate_inputs_stay_finite(case, cases, kind):
    degenerate = {
        "zeros": torch.zeros_like,
        "equal": torch.ones_like,
        "duplicates": lambda x: x[:1].expand_as(x),
    }[kind]
    loss, inputs = prepared(case, cases, torch.float32, degenerate)
    if not case.degenerate:
        with pytest.raises(ValueError, match="singular"):
            loss(*inputs)
        return
    value = loss(*inputs)
    value.backward()
    assert value.isfinite()
    for x in leaves(inputs):
        assert x.grad.isfinite().all()


def test_compiles_without_a_graph_break(case, cases):
    if not case.compiles:
        pytest.skip("the case breaks the graph around the loss, which its own test compiles")
    torch.compiler.reset()
    loss, inputs = prepared(case, cases, torch.float32)
    torch.manual_seed(4)
    expected = loss(*inputs)
    wanted = torch.autograd.grad(expected, leaves(inputs))
    other, inputs = prepared(case, cases, torch.float32)
    torch.manual_seed(4)
    value = torch.compile(other, fullgraph=True, backend="aot_eager")(*inputs)
    grads = torch.autograd.grad(value, leaves(inputs))
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(grads, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_no_value_is_read_by_the_host(case, cases):
    """On a device that holds no values, whatever asks for one fails."""
    if not case.compiles:
        pytest.skip("the case itself asks for values")
    loss, inputs = prepared(case, cases, torch.float32)
    loss = loss.to("meta") if isinstance(loss, nn.Module) else loss
    inputs = [x.detach().to("meta").requires_grad_(x.requires_grad) for x in inputs]
    with torch.device("meta"):  # for what the case makes
        value = loss(*inputs)
    value.backward()
    assert value.is_meta
    for x in leaves(inputs):
        assert x.grad.shape == x.shape


def test_wrong_inputs_are_refused(case, cases):
    loss, inputs = prepared(case, cases)
    whole = [x.detach().long() if x.requires_grad else x for x in inputs]
    with pytest.raises(TypeError, match="must be of a floating-point dtype, got torch.int64"):
        loss(*whole)
