"""Nearest-neighbour alignment against the official code, its slip aside."""

import pytest
import torch
from spt_losses import NNALoss, nna_loss
from torch.nn import functional as F


def views(golden):
    g = golden("mim_refiner_nna")
    names = ("projected_preswap", "projected_postswap", "predicted")
    return g, [g[name].double().transpose(0, 1) for name in names], g["temperature"].item()


def test_agrees_with_the_official_code_on_global_views(golden):
    g, (projected, neighbours, predicted), temperature = views(golden)
    predicted = predicted[:2].detach().requires_grad_()
    value = NNALoss(temperature)(projected, neighbours, predicted)
    value.backward()
    g.check("loss_global_views", value)
    g.check("grad_predicted_global_views", predicted.grad.transpose(0, 1))


def test_local_views_are_what_the_official_code_intends(golden):
    g, leaves, temperature = views(golden)
    g.check("loss_intended", nna_loss(*leaves, temperature=temperature))


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_matches_the_formula(chunk_size):
    projected, neighbours = torch.randn(2, 2, 5, 4, dtype=torch.float64)
    predicted = torch.randn(3, 5, 4, dtype=torch.float64)
    unit = [F.normalize(x, dim=-1) for x in (projected, neighbours, predicted)]
    total, pairs = 0.0, 0
    for i in range(2):
        for j in range(3):
            if i == j:
                continue
            pairs += 1
            logits = unit[0][i] @ unit[2][j].T / 0.2
            swapped = (unit[1][i] * unit[2][j]).sum(1) / 0.2
            logits = torch.where(torch.eye(5, dtype=torch.bool), swapped[:, None], logits)
            total += F.cross_entropy(logits, torch.arange(5))
    value = nna_loss(projected, neighbours, predicted, chunk_size=chunk_size)
    torch.testing.assert_close(value, total / pairs)


def test_wrong_arguments_are_named():
    x = torch.randn(2, 5, 4)
    with pytest.raises(
        ValueError, match="Nearest-neighbour alignment needs at least 2 views, got 1"
    ):
        nna_loss(x[:1], x[:1], x[:1])
    with pytest.raises(ValueError, match=r"must hold the N rows of the G views of `projected`"):
        nna_loss(x, x, x[:1])
    with pytest.raises(ValueError, match="`predicted` must have width 4"):
        nna_loss(x, x, x[..., :3])
    with pytest.raises(ValueError, match="`projected` and `neighbours` must have the same shape"):
        nna_loss(x, x[:1], x)
