"""The off-diagonal entries."""

import pytest
import torch
from spt_losses import off_diagonal


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_all_but_the_diagonal_in_order(n):
    x = torch.arange(n * n).view(n, n)
    assert off_diagonal(x).tolist() == [n * i + j for i in range(n) for j in range(n) if i != j]


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"square matrix of shape \(n, n\), got \(2, 3\)"):
        off_diagonal(torch.zeros(2, 3))
