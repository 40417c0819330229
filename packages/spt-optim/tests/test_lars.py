"""LARS against the paper's algorithm, SGD and timm."""

import numpy as np
import pytest
import torch
from spt_optim import LARS
from torch import nn


def reference(weight, grads, *, lr, momentum, decay, eta, eps=1e-8, nesterov=False, scale=True):
    """Algorithm 1 in NumPy float64."""
    weight, buffer = weight.copy(), None
    for grad in grads:
        if scale:
            w, g = np.linalg.norm(weight), np.linalg.norm(grad)
            trust = eta * w / (g + decay * w + eps) if w > 0 and g > 0 else 1.0
            grad = trust * (grad + decay * weight)
        buffer = grad if buffer is None else momentum * buffer + grad
        weight = weight - lr * (grad + momentum * buffer if nesterov else buffer)
    return weight


def run(optimizer_of, shapes, steps=4, seed=0):
    """Apply given gradients to tensors; returns the start, the gradients and the end."""
    rng = np.random.default_rng(seed)
    start = [rng.normal(size=shape) for shape in shapes]
    grads = [[rng.normal(size=shape) for shape in shapes] for _ in range(steps)]
    params = [nn.Parameter(torch.tensor(value)) for value in start]
    optimizer = optimizer_of(params)
    for step in grads:
        for p, grad in zip(params, step, strict=True):
            p.grad = torch.tensor(grad)
        optimizer.step()
    return start, grads, [p.detach().numpy() for p in params]


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_matches_the_algorithm(nesterov, decay):
    settings = {"lr": 0.3, "momentum": 0.9, "eta": 0.02, "nesterov": nesterov}
    start, grads, end = run(
        lambda params: LARS(params, weight_decay=decay, **settings), [(3, 4), (5,), (2, 3, 3)]
    )
    for i, scale in enumerate([True, False, True]):
        expected = reference(
            start[i], [step[i] for step in grads], decay=decay, scale=scale, **settings
        )
        np.testing.assert_allclose(end[i], expected, rtol=1e-10)


def test_excluded_tensors_are_those_of_sgd():
    _, _, ours = run(lambda p: LARS(p, lr=0.1, weight_decay=0.5), [(4,), (7,)])
    _, _, sgd = run(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), [(4,), (7,)])
    for a, b in zip(ours, sgd, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_agrees_with_timm_where_the_settings_agree():
    timm_optim = pytest.importorskip("timm.optim")
    shapes = [(3, 4), (6, 2)]
    _, _, theirs = run(
        lambda p: timm_optim.Lars(
            p, lr=0.2, momentum=0.9, weight_decay=0.01, trust_coeff=0.005, eps=1e-8
        ),
        shapes,
    )
    _, _, ours = run(lambda p: LARS(p, lr=0.2, momentum=0.9, weight_decay=0.01, eta=0.005), shapes)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7)


def test_the_rate_can_be_capped():
    weight = nn.Parameter(torch.full((2, 2), 100.0))
    weight.grad = torch.full((2, 2), 1e-3)
    LARS([weight], lr=0.5, momentum=0, eta=1.0, clip_lr=True).step()
    torch.testing.assert_close(weight.detach(), torch.full((2, 2), 100.0 - 0.5 * 1e-3))


def test_the_cap_at_a_rate_of_zero_is_its_limit():
    buffers = []
    for lr in (0.0, 1e-9):
        weight = nn.Parameter(torch.full((2, 2), 100.0))
        weight.grad = torch.ones(2, 2)
        optimizer = LARS([weight], lr=lr, eta=1e-3, clip_lr=True)
        optimizer.step()
        buffers.append(optimizer.state[weight]["momentum_buffer"])
    torch.testing.assert_close(*buffers)


def test_a_group_may_overrule_the_exclusion():
    bias, table = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, 2))
    bias.grad, table.grad = torch.ones(3), torch.ones(2, 2)
    groups = [{"params": [bias], "exclude": False}, {"params": [table], "exclude": True}]
    LARS(groups, lr=1.0, momentum=0, eta=0.1).step()
    torch.testing.assert_close(bias.detach(), torch.full((3,), 0.9))
    torch.testing.assert_close(table.detach(), torch.zeros(2, 2))


def test_resuming_goes_on_as_if_nothing_had_happened():
    first, second = (nn.Linear(3, 2, dtype=torch.float64) for _ in range(2))
    second.load_state_dict(first.state_dict())
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def step(net, optimizer):
        optimizer.zero_grad()
        net(x).square().sum().backward()
        optimizer.step()

    whole, begun = LARS(first.parameters(), lr=0.1), LARS(second.parameters(), lr=0.1)
    for _ in range(2):
        step(first, whole)
        step(second, begun)
    resumed = LARS(second.parameters(), lr=0.1)
    resumed.load_state_dict(begun.state_dict())
    step(first, whole)
    step(second, resumed)
    assert torch.equal(first.weight, second.weight)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, "`lr` must be >= 0"),
        ({"lr": 1.0, "momentum": 1.0}, r"`momentum` must be in \[0, 1\), got 1.0"),
        ({"lr": 1.0, "weight_decay": -0.1}, "`weight_decay` must be >= 0"),
        ({"lr": 1.0, "nesterov": True, "dampening": 0.1}, "Nesterov needs"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        LARS([nn.Parameter(torch.ones(1))], **settings)
