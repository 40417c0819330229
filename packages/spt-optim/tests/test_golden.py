"""The values that official code gives on fixed inputs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from spt_optim import (
    LARS,
    LinearWarmupCosineAnnealing,
    cosine_value,
    layer_decay_groups,
    linear_value,
    scale_lr,
    warmup_cosine_value,
)
from torch import nn

GOLDEN = Path(__file__).parent / "golden"
SCHEDULES = np.load(GOLDEN / "schedules.npz")
SETTINGS = json.loads((GOLDEN / "schedules.json").read_text())


def lars_run(decay, **settings):
    """Parameters after each of ten steps with the stored gradients and rates."""
    golden = np.load(GOLDEN / "lars.npz")
    names = [key.removeprefix("init.") for key in golden if key.startswith("init.")]
    params = {name: nn.Parameter(torch.tensor(golden[f"init.{name}"]).double()) for name in names}
    optimizer = LARS(
        params.values(), lr=1.0, momentum=0.9, eta=1e-3, weight_decay=decay, **settings
    )
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


@pytest.mark.parametrize(("prefix", "decay"), [("wd0.05", 0.05), ("wd1e-6", 1e-6), ("wd0", 0.0)])
def test_lars_with_the_norm_of_the_sum_is_that_of_barlow_twins(prefix, decay):
    """With weight decay too, and where the gradient or the weights are zero."""
    golden, found = lars_run(decay, norm_of_sum=True, eps=0.0)
    for name, values in found.items():
        code = "mocov3" if name == "scale" else "barlowtwins"  # Barlow Twins adapts 0-d scalars
        expected = golden[f"{prefix}.{code}.{name}"]
        np.testing.assert_allclose(np.stack(values), expected, rtol=1e-10, atol=0, err_msg=name)
    golden, found = lars_run(decay, norm_of_sum=True, eps=0.0, exclude_bias_n_norm=False)
    for name in ("fc.bias", "bn.weight"):
        expected = golden[f"{prefix}.barlowtwins_nofilter.{name}"]
        np.testing.assert_allclose(np.stack(found[name]), expected, rtol=1e-10, err_msg=name)


@pytest.mark.parametrize(("prefix", "decay"), [("wd0.05", 0.05), ("wd1e-6", 1e-6)])
def test_lars_with_decay_is_the_papers_as_in_timm(prefix, decay):
    golden, found = lars_run(decay)
    for name in ("conv.weight", "fc.bias", "bn.weight", "bn.bias", "token"):
        expected = golden[f"{prefix}.timm.{name}"]
        np.testing.assert_allclose(
            np.stack(found[name]), expected, rtol=1e-9, atol=1e-12, err_msg=name
        )


def steps_of(setting):
    """Steps of the run, and of its warm-up."""
    per_epoch = setting["steps_per_epoch"]
    warmup = setting.get("warmup_steps", setting.get("warmup_epochs", 0) * per_epoch)
    return setting["epochs"] * per_epoch, warmup


@pytest.mark.parametrize(
    "key", ["dino_lr", "dino_start_warmup", "dino_wd", "dino_momentum", "beit_lr"]
)
def test_cosines_of_dino_and_beit(key):
    setting = SETTINGS[key]
    total, warmup = steps_of(setting)
    found = [
        warmup_cosine_value(
            step, total, setting["base_value"], setting["final_value"], warmup_steps=warmup,
            start=setting.get("start_warmup_value", 0.0), early_peak=True,
        )
        for step in range(total)
    ]  # fmt: skip
    np.testing.assert_allclose(found, SCHEDULES[key], rtol=1e-12, atol=1e-18)
    if not warmup:
        base, final = setting["base_value"], setting["final_value"]
        plain = [cosine_value(step, total, base, final) for step in range(total)]
        np.testing.assert_allclose(plain, SCHEDULES[key], rtol=1e-12)


def test_teacher_temperatures_of_dino():
    setting = SETTINGS["dino_teacher_temp_by_epoch"]
    cold, warm = setting["warmup_teacher_temp"], setting["teacher_temp"]
    last = setting["warmup_teacher_temp_epochs"] - 1  # the end is reached on the last warm-up epoch
    found = [linear_value(epoch, last, cold, warm) for epoch in range(setting["epochs"])]
    np.testing.assert_allclose(found, SCHEDULES["dino_teacher_temp_by_epoch"], rtol=1e-12)
    config = SETTINGS["dinov2_teacher_temp"]["config"]
    length, teacher = config["train"]["OFFICIAL_EPOCH_LENGTH"], config["teacher"]
    last = teacher["warmup_teacher_temp_epochs"] * length - 1
    found = [
        linear_value(step, last, teacher["warmup_teacher_temp"], teacher["teacher_temp"])
        for step in range(len(SCHEDULES["dinov2_teacher_temp"]))
    ]
    np.testing.assert_allclose(found, SCHEDULES["dinov2_teacher_temp"], rtol=1e-12)


def test_momentum_of_dinov2_and_byol():
    config = SETTINGS["dinov2_momentum"]["config"]
    total = config["optim"]["epochs"] * config["train"]["OFFICIAL_EPOCH_LENGTH"]
    start, end = config["teacher"]["momentum_teacher"], config["teacher"]["final_momentum_teacher"]
    steps = range(len(SCHEDULES["dinov2_momentum"]))  # some lie past the end
    found = [cosine_value(step, total, start, end) for step in steps]
    np.testing.assert_allclose(found, SCHEDULES["dinov2_momentum"], rtol=1e-12)
    setting = SETTINGS["byol_tau_1000ep"]
    found = [
        cosine_value(step, setting["max_steps"], setting["base_ema"], 1.0)
        for step in SCHEDULES["byol_step"]
    ]
    np.testing.assert_allclose(found, SCHEDULES["byol_tau_1000ep"], rtol=1e-12)


def test_a_teacher_moved_by_the_cosine_is_that_of_the_official_code():
    """Six steps of the update that MoCo v3, DINO, I-JEPA and data2vec share."""
    golden = np.load(GOLDEN / "ema_update.npz")
    momentum = [cosine_value(step, 6, start=0.99, end=1.0) for step in range(6)]
    np.testing.assert_allclose(momentum, golden["momentum"], rtol=1e-12)
    for name in ("fc.weight", "fc.bias", "bn.weight", "bn.bias"):
        teacher = golden[f"teacher0.{name}"].astype(float)
        for m, student, expected in zip(
            momentum,
            golden[f"student.{name}"].astype(float),
            golden[f"teacher.{name}"],
            strict=True,
        ):
            teacher = m * teacher + (1 - m) * student
            np.testing.assert_allclose(teacher, expected, rtol=1e-12, atol=1e-14)


def test_momentum_of_vjepa_and_data2vec():
    setting = SETTINGS["vjepa_ema"]
    total = steps_of(setting)[0] * setting["schedule_scale"]  # its end is never reached
    found = [linear_value(step, total, *setting["ema"]) for step in range(steps_of(setting)[0])]
    np.testing.assert_allclose(found, SCHEDULES["vjepa_ema"], rtol=1e-12)
    setting = SETTINGS["data2vec_ema_fairseq"]
    found = [
        linear_value(step, setting["anneal_end_step"], setting["start"], setting["end"])
        for step in range(len(SCHEDULES["data2vec_ema_fairseq"]))
    ]
    np.testing.assert_allclose(found, SCHEDULES["data2vec_ema_fairseq"], rtol=1e-12)


@pytest.mark.parametrize("key", ["byol_lr_1000ep", "byol_lr_no_warmup"])
def test_rates_of_byol(key):
    setting = SETTINGS[key]
    peak = scale_lr(setting["base_learning_rate"], setting["batch_size"])
    found = [
        warmup_cosine_value(
            step, setting["total_steps"], peak, 0.0, warmup_steps=setting["warmup_steps"]
        )
        for step in SCHEDULES["byol_step"]
    ]
    np.testing.assert_allclose(found, SCHEDULES[key], rtol=1e-6, atol=1e-15)


@pytest.mark.parametrize("key", ["barlowtwins_lr_weights", "barlowtwins_lr_biases", "vicreg_lr"])
def test_schedulers_of_barlow_twins_and_vicreg(key):
    """Two groups of one optimizer, walked step by step through the scheduler."""
    setting = {**SETTINGS["barlowtwins_lr_weights"], **SETTINGS[key]}
    total = setting["epochs"] * setting["steps_per_epoch"]
    peak = scale_lr(setting["base"], setting["batch_size"])
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=peak)
    schedule = LinearWarmupCosineAnnealing(
        optimizer, total, start_factor=0.0, end_lr=1e-3 * peak,
        peak_step=10 * setting["steps_per_epoch"],
    )  # fmt: skip
    found = []
    for _ in range(total):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(found, SCHEDULES[key], rtol=1e-12, atol=1e-18)


def test_rates_of_dinov3_follow_the_square_root_of_the_batch():
    config = SETTINGS["dinov3_constant_lr"]["config"]
    length, lr = config["train"]["OFFICIAL_EPOCH_LENGTH"], config["schedules"]["lr"]
    batch = config["train"]["batch_size_per_gpu"] * SETTINGS["dinov3_constant_lr"]["world_size"]
    peak = scale_lr(4 * lr["peak"], batch, base_batch_size=1024, rule="sqrt")
    assert SCHEDULES["dinov3_constant_lr"].max() == pytest.approx(peak, rel=1e-12)
    last = lr["warmup_epochs"] * length
    found = [
        linear_value(step, last, lr["start"], peak)
        for step in range(len(SCHEDULES["dinov3_constant_lr"]))
    ]
    np.testing.assert_allclose(found, SCHEDULES["dinov3_constant_lr"], rtol=1e-12)


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


def tree(parameters):
    """A module with parameters of those names and shapes."""
    root = nn.Module()
    for name, entry in parameters.items():
        *path, last = name.split(".")
        node = root
        for part in path:
            if part not in dict(node.named_children()):
                node.add_module(part, nn.Module())
            node = node.get_submodule(part)
        node.register_parameter(last, nn.Parameter(torch.empty(entry["shape"], device="meta")))
    return root


LAYER_DECAY = json.loads((GOLDEN / "layer_decay.json").read_text())


@pytest.mark.parametrize("recipe", list(LAYER_DECAY))
def test_layer_decay_of_beit_and_dino(recipe):
    golden = LAYER_DECAY[recipe]
    module = tree(golden["parameters"])
    rate = golden.get("layer_decay", golden.get("lr_decay_rate"))
    groups = layer_decay_groups(
        module, 1.0, rate, golden.get("weight_decay", 1.0), n_layers=12,
        patch_embed_factor=golden.get("patch_embed_lr_mult", 1.0),
    )  # fmt: skip
    found = {name: group for group in groups for name in group["names"]}
    assert set(found) == set(golden["parameters"])
    for name, entry in golden["parameters"].items():
        factor = entry.get("lr_scale", entry.get("lr_multiplier"))
        assert found[name]["lr"] == pytest.approx(factor, rel=1e-12), name
        decay = entry.get("weight_decay", entry.get("wd_multiplier"))
        token = "token" in name or name == "pos_embed"  # decayed in DINOv2, left alone here
        assert found[name]["weight_decay"] == (0.0 if token else decay), name


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match=r"`layer_decay` must be in \(0, 1\], got 0"):
        layer_decay_groups(nn.Linear(1, 1), 1.0, 0, 0.0)
    with pytest.raises(ValueError, match="Linear has no parameter under blocks"):
        layer_decay_groups(nn.Linear(1, 1), 1.0, 0.9, 0.0)
    with pytest.raises(ValueError, match="`total_steps` must be > 0, got 0"):
        cosine_value(0, 0, 1.0, 0.0)
    with pytest.raises(ValueError, match="Batch sizes must be >= 1, got 0 and 256"):
        scale_lr(0.1, 0)
    with pytest.raises(ValueError, match="`rule` must be 'linear' or 'sqrt', got 'log'"):
        scale_lr(0.1, 8, rule="log")
    with pytest.raises(ValueError, match="`step` must be >= 0, got -1"):
        linear_value(-1, 5, 1.0, 0.0)
