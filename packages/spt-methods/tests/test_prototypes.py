"""The head of DINO against the official codes of DINO, DINOv2, DINOv3 and iBOT."""

from pathlib import Path

import numpy as np
import pytest
import torch
from spt_methods.backbones import PrototypeHead, Prototypes
from torch import nn

GOLDEN = Path(__file__).parent / "golden"


def official(name):
    with np.load(GOLDEN / name) as file:
        return {k: torch.tensor(file[k]) for k in file.files}


def head_of(arrays, prefix, **kwargs):
    """Our head with the official weights, by the order of the layers."""
    weights = {
        k.removeprefix(prefix): v.double() for k, v in arrays.items() if k.startswith(prefix)
    }
    head = PrototypeHead(
        16, 40, hidden_dim=24, bottleneck_dim=10, gain=kwargs.pop("gain", "free"), **kwargs
    )
    state = {}
    first = [k for k in weights if k.startswith("mlp")]
    own = [k for k in head.state_dict() if k.startswith("mlp") and "tracked" not in k]
    assert len(own) == len(first)
    for a, b in zip(own, first, strict=True):
        state[a] = weights[b]
    for ours, theirs in (("last_layer", "last_layer"), ("patch_layer", "last_layer2")):
        if f"{ours}.weight" not in head.state_dict():
            continue  # patches share the head
        state[f"{ours}.weight"] = weights.get(f"{theirs}.weight_v", weights.get(f"{theirs}.weight"))
        if f"{ours}.gain" in head.state_dict():
            state[f"{ours}.gain"] = weights[f"{theirs}.weight_g"]
    head = head.double()
    missing = head.load_state_dict(state, strict=False).missing_keys
    assert all("tracked" in k for k in missing)
    return head


def close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_the_head_of_dino_and_its_gradients():
    arrays = official("dino_head.npz")
    x, upstream = arrays["x"].double(), arrays["upstream"].double()
    head = head_of(arrays, "dino.")
    out = head(x)
    close(out, arrays["dino_out"])
    (out * upstream).sum().backward()
    close(head.last_layer.weight.grad, arrays["dino_grad_weight_v"])
    close(head.last_layer.gain.grad, arrays["dino_grad_weight_g"])
    close(head.mlp[0].weight.grad, arrays["dino_grad_first_weight"])
    with torch.no_grad():
        head.last_layer.gain.fill_(1.0)
    close(head(x), arrays["dino_out_gain_one"])


def test_batch_norm_one_layer_and_dinov3():
    arrays = official("dino_head.npz")
    x = arrays["x"].double()
    normed = head_of(arrays, "dino_bn.", batch_norm=True)
    close(normed.eval()(x), arrays["dino_bn_out_eval"])
    close(normed.train()(x), arrays["dino_bn_out_train"])
    close(head_of(arrays, "dino_one_layer.", n_layers=1)(x), arrays["dino_one_layer_out"])
    close(head_of(arrays, "dinov3.", gain="none")(x), arrays["dinov3_out"])


def test_the_heads_of_ibot():
    arrays = official("ibot_head.npz")
    x = arrays["x"].double()
    separate = head_of(arrays, "separate.", n_patch_prototypes=33)
    close(separate(x[:, 0]), arrays["separate_cls_out"])
    close(separate.forward_patches(x[:, 1:]), arrays["separate_patch_out"])
    close(separate(x[:, 0]), arrays["separate_2d_out"])
    shared = head_of(arrays, "shared.")
    close(shared(x[:, 0]), arrays["shared_cls_out"])
    close(shared.forward_patches(x[:, 1:]), arrays["shared_patch_out"])


def test_fixed_gains_make_logits_cosines():
    head = PrototypeHead(16, 40, hidden_dim=24, bottleneck_dim=10)
    out = head(100 * torch.randn(50, 16))
    assert out.abs().max() <= 1 + 1e-6
    out.sum().backward()
    assert head.last_layer.gain.grad is None
    assert not head.last_layer.gain.requires_grad
    biases = [m.bias for m in head.mlp if isinstance(m, nn.Linear)]
    assert all(torch.equal(b, torch.zeros_like(b)) for b in biases)


def test_what_the_head_refuses():
    with pytest.raises(ValueError, match="`gain` must be 'fixed', 'free' or 'none', got 'one'"):
        Prototypes(4, 8, "one")
    with pytest.raises(ValueError, match="`n_layers` must be >= 1, got 0"):
        PrototypeHead(4, 8, n_layers=0)
