"""Real process groups: the averaged gradient is that of one process on the whole batch."""

import pytest
import torch

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


def test_gradient_of_all_ranks_is_that_of_one_process(case, split, pool, cases):
    counts, results = pool[split]
    if not case.unequal and len(set(counts)) > 1:
        assert case.name not in results
        return
    expected = cases.gradients(case, [sum(counts)], 0)
    for ours, whole in zip(results[case.name], expected, strict=True):
        scale = whole.abs().max().item()
        torch.testing.assert_close(ours, whole, rtol=1e-9, atol=1e-10 * scale + 1e-13)


def test_moments_cross_the_network_and_rows_do_not(pool):
    """What VICReg and Barlow Twins send is independent of the batch; NT-Xent must send its rows."""
    _, results = pool["2 equal"]
    for name, grows in (("barlow_twins", False), ("vicreg", False), ("ntxent", True)):
        small, large = results[f"{name} traffic"].tolist()
        assert small > 0
        assert (large > small) == grows, (name, small, large)
