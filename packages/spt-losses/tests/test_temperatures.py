"""Losses with a temperature or scale: tiny and huge ones, on ordinary and degenerate rows."""

import pytest
import spt_losses as sl
import torch

N, D = 6, 4

LOSSES = {
    "ntxent": lambda t: sl.NTXEntLoss(t),
    "clip": lambda t: sl.CLIPLoss(t),
    "siglip": lambda t: sl.SigLIPLoss(1 / t),
    "dcl": lambda t: sl.DCLLoss(t),
    "dcl_weighted": lambda t: sl.DCLLoss(t, sigma=t),
    "info_nce": lambda t: lambda a, b: sl.info_nce_loss(a, b, torch.arange(N), temperature=t),
    "moco": lambda t: sl.MoCoLoss(12, D, t),
    "moco_v3": lambda t: lambda a, b: sl.moco_v3_loss(a, b, a, b, temperature=t),
    "nnclr": lambda t: lambda a, b: sl.NNCLRLoss(12, D, t)(a, b, a, b),
    "pirl": lambda t: lambda a, b: sl.PIRLLoss(9, D, temperature=t)(a, b, torch.arange(N)),
    "cmae": lambda t: sl.CMAEContrastLoss(t),
    "nna": lambda t: lambda a, b: sl.nna_loss(*[torch.stack([a, b])] * 3, temperature=t),
    "swav": lambda t: lambda a, b: sl.swav_loss([a, b], torch.eye(D), temperature=t, epsilon=t),
    "msn": lambda t: lambda a, b: sl.msn_loss(a, b, torch.eye(D), temperature=t),
    "dino": lambda t: (
        lambda a, b: sl.dino_loss(
            torch.stack([a, b]), (torch.stack([b, a]) / t).softmax(-1), temperature=t
        )
    ),
    "ibot": lambda t: lambda a, b: sl.ibot_patch_loss(a, (b / t).softmax(-1), temperature=t),
}

ROWS = {
    "ordinary": lambda x: x,
    "duplicates": lambda x: x[:1].expand_as(x),
    "zeros": torch.zeros_like,
    "opposite": lambda x: x * torch.tensor([1.0, -1.0]).repeat(N // 2)[:, None],
}


@pytest.mark.parametrize("temperature", [1e-6, 1e-3, 1e3, 1e6])
@pytest.mark.parametrize("rows", list(ROWS))
@pytest.mark.parametrize("name", list(LOSSES))
def test_value_and_gradients_stay_finite(name, rows, temperature):
    generator = torch.Generator().manual_seed(0)
    views = [ROWS[rows](torch.randn(N, D, generator=generator)) for _ in range(2)]
    a, b = (view.clone().requires_grad_() for view in views)
    value = LOSSES[name](temperature)(a, b)
    value.backward()
    assert value.isfinite()
    for x in (a, b):
        assert x.grad is None or x.grad.isfinite().all()
