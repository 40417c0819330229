"""data2vec's targets and loss against both official recipes."""

import math

import pytest
import torch
from spt_losses import Data2VecLoss, data2vec_loss, data2vec_targets
from torch.nn import functional as F

RECIPES = {
    "fairseq_base": {"block_norm": None},
    "fairseq_layer_and_final_norm": {"block_norm": "layer"},
    "fairseq_instance_norm": {"block_norm": "instance", "final_norm": False},
    "fairseq_plain_l2": {"block_norm": None, "final_norm": False},
    "original_run": {},
    "original_default": {"final_norm": False},
}


@pytest.mark.parametrize("name", list(RECIPES))
def test_targets_agree_with_the_official_code(golden, name):
    g = golden("data2vec_target")
    blocks = list(g["block_outputs"].double())
    targets = data2vec_targets(blocks, top_k=6, **RECIPES[name])
    g.check(f"target_{name}", targets[g["mask"].bool()])


def test_the_loss_agrees_with_the_published_vision_models(golden):
    g = golden("data2vec_target")
    pred = g["pred"].double()[g["mask"].bool()]
    g.check("loss_mean_original_run", Data2VecLoss()(pred, g["target_original_run"]))
    value = data2vec_loss(pred, g["target_original_default"], beta=0.12)
    g.check("loss_mean_original_default", value)


@pytest.mark.parametrize("name", ["fairseq_base", "fairseq_layer_and_final_norm"])
def test_the_port_in_fairseq_has_a_factor(golden, name):
    g = golden("data2vec_target")
    pred = g["pred"].double().requires_grad_()
    loss = data2vec_loss(pred[g["mask"].bool()], g[f"target_{name}"]) * math.sqrt(pred.shape[-1])
    g.check(f"loss_per_token_{name}", loss)
    g.check(f"grad_pred_{name}", torch.autograd.grad(loss, pred)[0])


def test_targets_are_float32_under_autocast_without_gradient():
    blocks = [torch.randn(2, 5, 8, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        targets = data2vec_targets(blocks, top_k=2)
    assert targets.dtype == torch.float32
    assert not targets.requires_grad
    mean = sum(F.layer_norm(x.detach().float(), (8,)) for x in blocks[1:]) / 2
    torch.testing.assert_close(targets, F.layer_norm(mean, (8,)))


def test_wrong_arguments_are_named():
    x = torch.randn(2, 5, 8)
    with pytest.raises(ValueError, match="`top_k` 4 exceeds the number of blocks, 3"):
        data2vec_targets([x] * 3, top_k=4)
    with pytest.raises(ValueError, match="`block_norm` must be 'layer', 'instance' or None"):
        data2vec_targets([x], top_k=1, block_norm="batch")
    with pytest.raises(ValueError, match="must have the same shape"):
        data2vec_targets([x, x[:, :4]], top_k=2)
    with pytest.raises(ValueError, match="`beta` must be > 0, got 0"):
        Data2VecLoss(0.0)
    with pytest.raises(ValueError, match=r"`pred` must have shape \(N, D\)"):
        data2vec_loss(x, x)
