"""The values that official code gives on fixed inputs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from spt_optim import (
    LARS,
    cosine_value,
    layer_decay_groups,
    linear_value,
    warmup_cosine_value,
)
from torch import nn

GOLDEN = Path(__file__).parent / "golden"
SCHEDULES = np.load(GOLDEN / "schedules.npz")
SETTINGS = json.loads((GOLDEN / "schedules.json").read_text())


def lars_run(decay):
    """Parameters after each of ten steps with the stored gradients and rates."""
    golden = np.load(GOLDEN / "lars.npz")
    names = [key.removeprefix("init.") for key in golden if key.startswith("init.")]
    params = {name: nn.Parameter(torch.tensor(golden[f"init.{name}"]).double()) for name in names}
    optimizer = LARS(params.values(), lr=1.0, momentum=0.9, eta=1e-3, weight_decay=decay)
    found = {name: [] for name in names}
    for step, lr in enumerate(golden["lr"]):
        optimizer.param_groups[0]["lr"] = float(lr)
        for name, p in params.items():
            p.grad = torch.tensor(golden[f"grad.{name}"][step]).double()
        optimizer.step()
        for name, p in params.items():
            found[name].append(p.detach().clone().numpy())
    return golden, found


def test_lars_without_decay_is_that_of_barlow_twins():
    golden, found = lars_run(0.0)
    for name, values in found.items():
        if name == "scale":  # 0-dimensional: excluded here as in MoCo v3, adapted in Barlow Twins
            expected = golden["wd0.mocov3.scale"]
        else:
            expected = golden[f"wd0.barlowtwins.{name}"]
        np.testing.assert_allclose(np.stack(values), expected, rtol=1e-7, atol=1e-10, err_msg=name)


@pytest.mark.parametrize(("prefix", "decay"), [("wd0.05", 0.05), ("wd1e-6", 1e-6)])
def test_lars_with_decay_is_the_papers_as_in_timm(prefix, decay):
    golden, found = lars_run(decay)
    for name in ("conv.weight", "fc.bias", "bn.weight", "bn.bias", "token"):
        expected = golden[f"{prefix}.timm.{name}"]
        np.testing.assert_allclose(
            np.stack(found[name]), expected, rtol=1e-9, atol=1e-12, err_msg=name
        )


@pytest.mark.parametrize("key", ["dino_wd", "dino_momentum"])
def test_cosines_of_dino(key):
    setting = SETTINGS[key]
    total = setting["epochs"] * setting["steps_per_epoch"]
    start, end = setting["base_value"], setting["final_value"]
    found = [cosine_value(step, total, start, end) for step in range(total)]
    np.testing.assert_allclose(found, SCHEDULES[key], rtol=1e-12)


def test_schedules_of_ijepa():
    setting = SETTINGS["ijepa_lr"]
    total = setting["epochs"] * setting["steps_per_epoch"]
    warmup = setting["warmup_epochs"] * setting["steps_per_epoch"]
    rates = [
        warmup_cosine_value(
            step, total, setting["ref_lr"], setting["final_lr"],
            warmup_steps=warmup, start=setting["start_lr"],
        )
        for step in range(1, total + 1)  # its scheduler steps before the first use
    ]  # fmt: skip
    np.testing.assert_allclose(rates, SCHEDULES["ijepa_lr"], rtol=1e-10)
    decay = [
        cosine_value(step, total, setting["wd"], setting["final_wd"])
        for step in range(1, total + 1)
    ]
    np.testing.assert_allclose(decay, SCHEDULES["ijepa_wd"], rtol=1e-10)
    momentum = [linear_value(step, total, *setting["ema"]) for step in range(total)]
    np.testing.assert_allclose(momentum, SCHEDULES["ijepa_ema"], rtol=1e-10)


def test_schedules_of_moco_v3_and_mae():
    epochs = SCHEDULES["fractional_epoch"]
    setting = SETTINGS["mocov3_lr"]
    total, warmup, peak = setting["epochs"], setting["warmup_epochs"], setting["lr"]
    rates = [warmup_cosine_value(e, total, peak, 0.0, warmup_steps=warmup) for e in epochs]
    np.testing.assert_allclose(rates, SCHEDULES["mocov3_lr"], rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(rates, SCHEDULES["mae_lr"], rtol=1e-10, atol=1e-15)
    momentum = [cosine_value(e, 300, SETTINGS["mocov3_momentum"]["moco_m"], 1.0) for e in epochs]
    np.testing.assert_allclose(momentum, SCHEDULES["mocov3_momentum"], rtol=1e-10)


def test_layer_decay_of_mae():
    timm = pytest.importorskip("timm")
    golden = json.loads((GOLDEN / "layer_decay_mae.json").read_text())
    model = timm.create_model("vit_small_patch16_224", num_classes=10, global_pool="avg")
    groups = layer_decay_groups(model, 1.0, golden["layer_decay"], golden["weight_decay"])
    found = {
        name: (group["lr"], group["weight_decay"]) for group in groups for name in group["names"]
    }
    expected = {
        name: (entry["lr_scale"], entry["weight_decay"])
        for name, entry in golden["parameters"].items()
    }
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=1e-12), name
    torch.optim.AdamW(groups)


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match=r"`layer_decay` must be in \(0, 1\], got 0"):
        layer_decay_groups(nn.Linear(1, 1), 1.0, 0, 0.0)
    with pytest.raises(ValueError, match="Linear has no parameter under blocks"):
        layer_decay_groups(nn.Linear(1, 1), 1.0, 0.9, 0.0)
    with pytest.raises(ValueError, match="`total_steps` must be > 0, got 0"):
        cosine_value(0, 0, 1.0, 0.0)
    with pytest.raises(ValueError, match="`step` must be >= 0, got -1"):
        linear_value(-1, 5, 1.0, 0.0)
