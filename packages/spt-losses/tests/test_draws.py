"""Numbers drawn by a function of seed, call and place: spread, independence, no state but a count."""

import math

import pytest
import torch
from spt_losses._draws import Draws


def test_uniform_numbers_fill_the_interval_evenly():
    x = Draws(3).uniform(200_000, dtype=torch.float64)
    assert 0 < x.min() < 1e-4
    assert 1 - 1e-4 < x.max() < 1
    counts = torch.histc(x, 50, 0, 1)
    chi2 = ((counts - 4000) ** 2 / 4000).sum().item()
    assert abs(chi2 - 49) < 5 * math.sqrt(2 * 49)
    assert abs(torch.corrcoef(torch.stack([x[:-1], x[1:]]))[0, 1]) < 5 / math.sqrt(len(x))


def test_every_bit_is_fair():
    bits = Draws().bits(100_000)
    ones = torch.stack([((bits >> k) & 1).double().mean() for k in range(32)])
    assert ((ones - 0.5).abs() < 5 * 0.5 / math.sqrt(len(bits))).all()


def test_normal_numbers_have_the_moments_of_a_gaussian():
    x = Draws(1).normal(400, 500, dtype=torch.float64)
    n = x.numel()
    assert abs(x.mean()) < 5 / math.sqrt(n)
    assert abs(x.square().mean() - 1) < 5 * math.sqrt(2 / n)
    assert abs((x**4).mean() - 3) < 5 * math.sqrt(96 / n)
    correlation = torch.corrcoef(x[:20]) - torch.eye(20)
    assert correlation.abs().max() < 5 / math.sqrt(500)


def test_calls_seeds_and_nothing_else_make_the_numbers():
    draws, again = Draws(), Draws()
    first, second = draws.bits(1000), draws.bits(1000)
    assert torch.equal(again.bits(1000), first)
    for other in (second, Draws(1).bits(1000)):
        assert (other == first).float().mean() < 0.01
        assert abs(torch.corrcoef(torch.stack([first, other]).double())[0, 1]) < 0.15
    assert draws.calls == 2
    again.load_state_dict({"calls": torch.tensor(1)})
    assert torch.equal(again.bits(1000), second)


def test_evaluation_does_not_count():
    draws = Draws().eval()
    assert torch.equal(draws.bits(5), draws.bits(5))
    assert draws.calls == 0


def test_permutations_are_permutations_and_all_as_likely():
    orders = Draws().permutations(6000, 3)
    assert torch.equal(orders.sort(1).values, torch.arange(3).expand(6000, 3))
    kinds, counts = (orders @ torch.tensor([9, 3, 1])).unique(return_counts=True)
    assert len(kinds) == 6
    assert ((counts - 1000).abs() < 5 * math.sqrt(1000)).all()


def test_integers_stay_in_range():
    x = Draws().integers(7, 7000)
    assert x.unique().tolist() == list(range(7))
    assert ((x.bincount() - 1000).abs() < 5 * math.sqrt(1000)).all()


@pytest.mark.parametrize("method", ["uniform", "normal"])
def test_it_compiles_and_counts_on_without_a_graph_break(method):
    torch.compiler.reset()
    draws, eager = Draws(), Draws()
    compiled = torch.compile(
        lambda: getattr(draws, method)(4, 3), fullgraph=True, backend="aot_eager"
    )
    for _ in range(3):
        torch.testing.assert_close(compiled(), getattr(eager, method)(4, 3))
