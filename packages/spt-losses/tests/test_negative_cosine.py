"""Negative cosine similarity against torch and lightly."""

import pytest
import torch
from spt_losses import NegativeCosineSimilarity, negative_cosine_similarity
from torch.nn import functional as F


def test_it_is_the_cosine_of_torch():
    a, b = torch.randn(2, 7, 4, dtype=torch.float64)
    expected = -F.cosine_similarity(a, b, dim=1).mean()
    torch.testing.assert_close(negative_cosine_similarity(a, b), expected)


def test_agrees_with_lightly():
    lightly = pytest.importorskip("lightly.loss")
    a, b = torch.randn(2, 7, 4)
    theirs = lightly.NegativeCosineSimilarity()(a, b)
    torch.testing.assert_close(NegativeCosineSimilarity()(a, b), theirs)


def test_unpaired_inputs_are_named():
    with pytest.raises(ValueError, match=r"same shape, got \(4, 8\) and \(3, 8\)"):
        negative_cosine_similarity(torch.randn(4, 8), torch.randn(3, 8))
