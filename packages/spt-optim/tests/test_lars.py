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


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"weight_decay": 0.01}, {"weight_decay": 0.01}),
        ({"momentum": 0.0}, {"momentum": 0.0}),
        ({"nesterov": True}, {"nesterov": True}),
        ({"dampening": 0.3}, {"dampening": 0.3}),
        ({"trust_clip": True, "lr": 1e-4}, {"clip_lr": True, "lr": 1e-4}),
        ({"trust_clip": True, "lr": 1.0}, {"clip_lr": True, "lr": 1.0}),
    ],
    ids=["decay", "no momentum", "nesterov", "dampening", "capped", "below the cap"],
)
def test_agrees_with_timm_where_the_settings_agree(theirs, ours):
    lars_of_timm = pytest.importorskip("timm.optim").Lars
    shapes = [(3, 4), (6, 2)]
    common = {"lr": 0.2, "momentum": 0.9, "eps": 1e-8}
    weight_decay = theirs.get("weight_decay", 1e-6)  # without decay timm scales nothing
    _, _, expected = run(
        lambda p: lars_of_timm(
            p, **{**common, "trust_coeff": 0.005, **theirs, "weight_decay": weight_decay}
        ),
        shapes,
    )
    _, _, found = run(
        lambda p: LARS(p, **{**common, "eta": 0.005, **ours, "weight_decay": weight_decay}), shapes
    )
    for a, b in zip(found, expected, strict=True):
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


def test_tensors_without_decay_are_scaled_all_the_same():
    start, grads, end = run(lambda p: LARS(p, lr=0.3, eta=0.02, weight_decay=0.0), [(3, 4)])
    scaled = reference(
        start[0], [step[0] for step in grads], lr=0.3, momentum=0.9, decay=0.0, eta=0.02
    )
    np.testing.assert_allclose(end[0], scaled, rtol=1e-10)
    assert np.abs(end[0] - start[0]).max() < 0.1  # the plain gradient would move it by about 1


def test_defaults_are_the_recipe_of_self_supervised_learning():
    fresh_bias, weight = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([fresh_bias, weight], lr=1.0)
    assert optimizer.defaults["momentum"] == 0.9
    assert optimizer.defaults["eta"] == 1e-3
    fresh_bias.grad, weight.grad = torch.ones(3), torch.ones(2, 2)
    optimizer.step()
    torch.testing.assert_close(fresh_bias.detach(), torch.full((3,), -1.0))  # excluded: plain SGD
    torch.testing.assert_close(weight.detach(), torch.full((2, 2), 0.999))


def test_dtypes_may_be_mixed_and_half_precision_is_scaled_in_single():
    params = [nn.Parameter(torch.ones(400, 400, dtype=d)) for d in (torch.float16, torch.float64)]
    for p in params:
        p.grad = torch.full_like(p, 200.0)  # the sum of squares overflows float16
    LARS(params, lr=1.0, momentum=0.0, eta=0.5).step()
    for p in params:
        torch.testing.assert_close(p.detach(), torch.full_like(p, 0.5))


def test_tensors_without_gradient_wait_and_start_afresh():
    weight, late = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([weight, late], lr=1.0, dampening=0.5)
    weight.grad = torch.ones(2, 2)
    optimizer.step()
    assert torch.equal(late, torch.ones(2, 2))
    late.grad = torch.ones(2, 2)
    optimizer.step()
    torch.testing.assert_close(late.detach(), torch.full((2, 2), 0.999))  # no dampening at first


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_many_tensors_and_large_ones_step_as_each_alone(momentum, nesterov):
    """However the tensors are gathered for speed, each follows the algorithm; gradients stay."""
    shapes = [(300, 300), (3,), (2, 2), (700, 200), (5, 1), (40, 40), (1,)]
    settings = {"lr": 0.3, "momentum": momentum, "eta": 0.02, "nesterov": nesterov}
    start, grads, end = run(lambda p: LARS(p, weight_decay=0.1, **settings), shapes)
    for i, shape in enumerate(shapes):
        expected = reference(
            start[i], [g[i] for g in grads], decay=0.1, scale=len(shape) > 1, **settings
        )
        np.testing.assert_allclose(end[i], expected, rtol=1e-10, atol=1e-14)
    weight = nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.full((2, 2), 3.0)
    LARS([weight], weight_decay=0.1, **settings).step()
    assert torch.equal(weight.grad, torch.full((2, 2), 3.0))


def test_a_closure_is_evaluated_with_gradients():
    weight = nn.Parameter(torch.ones(2, 2))

    def closure():
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert LARS([weight], lr=0.1).step(closure) == 4.0
    assert (weight < 1).all()


def test_scale_does_not_depend_on_the_units_of_the_loss():
    """The trust ratio makes the step invariant to a factor on the gradient."""
    ends = []
    for factor in (1.0, 1e4):
        weight = nn.Parameter(torch.arange(1.0, 7).reshape(2, 3).double())
        weight.grad = factor * torch.ones_like(weight)
        LARS([weight], lr=0.1, eps=0.0).step()
        ends.append(weight.detach())
    torch.testing.assert_close(*ends, rtol=1e-12, atol=0)


@pytest.mark.parametrize("settings", [{}, {"clip_lr": True}, {"norm_of_sum": True}])
def test_no_value_is_read_by_the_host(settings):
    """On a device that holds no values, whatever asks for one fails."""
    layer = nn.Linear(3, 2, device="meta")
    for p in layer.parameters():
        p.grad = torch.empty_like(p)
    optimizer = LARS(layer.parameters(), lr=0.1, weight_decay=0.1, **settings)
    for _ in range(2):
        optimizer.step()
    assert optimizer.state[layer.weight]["momentum_buffer"].is_meta


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
        ({"lr": 1.0, "eps": -1e-8}, "`eps` must be >= 0"),
        ({"lr": 1.0, "nesterov": True, "dampening": 0.1}, "Nesterov needs"),
        ({"lr": 1.0, "nesterov": True, "momentum": 0.0}, "Nesterov needs `momentum` > 0"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        LARS([nn.Parameter(torch.ones(1))], **settings)
