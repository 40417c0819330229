"""Several optimizers, groups, schedules of values: rhythm, clipping, leftovers, precision."""

import contextlib
import math

import lightning as pl
import pytest
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins import MixedPrecision
from spt_methods import Module, NonFiniteLossError
from spt_methods.optim.assign import assign
from spt_methods.optim.values import clip
from spt_methods.schedule import Schedule, as_schedule
from torch import nn
from torch.utils.data import DataLoader

SGD = {"type": "SGD", "lr": 0.1}
CONSTANT = {"optimizer": SGD, "scheduler": None}


def forward(self, batch, stage):
    x = batch["x"].to(self.head.weight.dtype)
    out = self.head(torch.tanh(self.backbone(x)))
    loss = (out.sum(1) - x[:, 0]).square().mean()
    if stage == "validate":
        self.log("val_loss", loss)
    return {"embedding": out, "loss": loss}


def make(optim, seed=0, **kwargs):
    torch.manual_seed(seed)
    return Module(
        forward=forward, backbone=nn.Linear(4, 3), head=nn.Linear(3, 2), optim=optim, **kwargs
    )


def rows(n=12):
    return [{"x": r} for r in torch.randn(n, 4, generator=torch.Generator().manual_seed(0))]


def fit(module, tmp_path, n=12, batch_size=2, val=False, ckpt_path=None, **kwargs):
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path,
        **{"max_epochs": 2, "enable_checkpointing": False, **kwargs},
    )  # fmt: skip
    loader = DataLoader(rows(n), batch_size=batch_size)
    trainer.fit(module, loader, loader if val else None, ckpt_path=ckpt_path)
    return trainer


def two(first=None, second=None):
    return {
        "encoder": {"modules": "backbone", **CONSTANT, **(first or {})},
        "rest": {**CONSTANT, **(second or {})},
    }


def close(a, b, **kwargs):
    for name, value in a.state_dict().items():
        torch.testing.assert_close(value, b.state_dict()[name], msg=name, **kwargs)


def test_two_optimizers_of_equal_settings_are_one(tmp_path):
    one, several = make(CONSTANT), make(two())
    trainer = fit(one, tmp_path)
    assert fit(several, tmp_path).global_step == trainer.global_step == 12
    close(one, several)
    assert len(trainer.optimizers) == 1
    assert len(several.optimizers()) == 2


def test_a_trainer_that_fits_further_counts_on(tmp_path):
    module = make(two())
    trainer = fit(module, tmp_path)
    trainer.fit_loop.max_epochs = 4
    trainer.fit(module, DataLoader(rows(), batch_size=2))
    assert trainer.global_step == 24
    assert [stepper.steps for stepper in module._steppers.steppers] == [24, 24]


def test_a_module_of_several_optimizers_is_fitted_again(tmp_path):
    """Lightning refuses a Trainer's accumulation and clipping beside manual optimisation."""
    module = make(two())
    for _ in range(2):
        trainer = fit(module, tmp_path, accumulate_grad_batches=2, gradient_clip_val=1.0)
        assert trainer.global_step == 6


@pytest.mark.parametrize("optim", [CONSTANT, two()], ids=["one", "several"])
@pytest.mark.parametrize("clip_val", [None, 0.05])
def test_accumulation_with_leftovers_averages_what_there_is(tmp_path, optim, clip_val):
    """10 rows in batches of 2, 4 batches a step: windows of 8 and 2 rows."""
    module = make(optim)
    trainer = fit(
        module, tmp_path, n=10, max_epochs=2, accumulate_grad_batches=4,
        gradient_clip_val=clip_val,
    )  # fmt: skip
    assert trainer.global_step == 4
    assert trainer.estimated_stepping_batches == 4
    expected = make(CONSTANT)
    parts = [[expected.backbone], [expected.head]] if len(optim) == 2 and "rest" in optim else [
        [expected.backbone, expected.head]
    ]  # fmt: skip
    optimizers = [
        torch.optim.SGD([p for m in part for p in m.parameters()], lr=0.1) for part in parts
    ]
    data = torch.stack([r["x"] for r in rows(10)])
    for _ in range(2):
        for window in (data[:8], data[8:]):
            expected({"x": window}, "fit")["loss"].backward()
            for optimizer in optimizers:
                if clip_val:
                    nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], clip_val)
                optimizer.step()
                optimizer.zero_grad()
    close(module, expected)


def test_each_optimizer_keeps_its_rhythm_schedule_and_clip(tmp_path):
    optim = two(
        {
            "frequency": 2, "gradient_clip_val": 1e-3,
            "scheduler": {"type": "CosineAnnealingLR"},
        },
        {"frequency": 3, "scheduler": {"type": "StepLR", "step_size": 1, "gamma": 0.5},
         "interval": "epoch", "gradient_clip_val": 1e-3, "gradient_clip_algorithm": "value"},
    )  # fmt: skip
    seen = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            seen.append((trainer.global_step, [s.steps for s in module._steppers.steppers]))

    module = make(optim)
    trainer = fit(module, tmp_path, n=14, callbacks=[Watch()])  # 7 batches an epoch
    assert [step for step, _ in seen[:7]] == [0, 1, 1, 2, 2, 3, 4]  # the first one counts
    assert [steps[1] for _, steps in seen[:7]] == [0, 0, 1, 1, 1, 2, 3]
    assert trainer.estimated_stepping_batches == 8 == trainer.global_step
    schedulers = [c.scheduler for c in trainer.lr_scheduler_configs]
    assert schedulers[0].T_max == 8
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-9)
    assert trainer.optimizers[1].param_groups[0]["lr"] == pytest.approx(0.1 * 0.25)
    fresh = make(optim)
    moved = (module.head.bias - fresh.head.bias).abs().max()
    assert moved <= 3 * 1e-4 + 3 * 5e-5 + 1e-7  # at most rate times clip in each step


def test_max_steps_counts_the_first_optimizer(tmp_path):
    trainer = fit(make(two({"frequency": 2})), tmp_path, max_epochs=-1, max_steps=5)
    assert trainer.global_step == 5


@pytest.mark.parametrize("optim", [CONSTANT, two()], ids=["one", "several"])
def test_a_plateau_follows_validation_under_any_number_of_optimizers(tmp_path, optim):
    plateau = {
        "scheduler": {"type": "ReduceLROnPlateau", "patience": 0, "factor": 0.1, "threshold": 1e9},
        "monitor": "val_loss",
    }
    optim = (
        {**optim, **plateau}
        if "optimizer" in optim
        else {"a": {**optim["encoder"], **plateau}, "b": optim["rest"]}
    )
    trainer = fit(make(optim), tmp_path, val=True, max_epochs=3)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 * 1e-3)


def test_a_plateau_names_the_metric_it_misses(tmp_path):
    optim = two({"scheduler": "ReduceLROnPlateau", "monitor": "eval/acc"})
    with pytest.raises(ValueError, match=r"follows 'eval/acc', which was not logged; there are \["):
        fit(make(optim), tmp_path)


@pytest.mark.parametrize("optim", [CONSTANT, two()], ids=["one", "several"])
def test_fp16_scaling_and_clipping_act_on_true_gradients(tmp_path, optim):
    """A scaled loss, a clip: the step is that of full precision, even as the scale changes."""

    def run(**kwargs):
        module = make(optim).double()
        fit(module, tmp_path, gradient_clip_val=0.01, accumulate_grad_batches=2, **kwargs)
        return module

    class Scaled(MixedPrecision):
        def forward_context(self):  # the scaling alone, without half precision
            return contextlib.nullcontext()

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=1)
    scaled = run(plugins=[Scaled("16-mixed", "cpu", scaler)])
    close(scaled, run(), rtol=1e-7, atol=1e-9)
    assert scaler.get_scale() > 2.0**16  # it has grown in every step


def test_parameters_are_given_by_subtree_and_the_nearest_wins():
    net = nn.ModuleDict(
        {"encoder": nn.Linear(1, 1), "encoder2": nn.Linear(1, 1),
         "heads": nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)})}
    )  # fmt: skip
    taken = assign(net, {"x": "encoder", "y": "heads", "z": r"heads\.b", "rest": None}, None)
    assert {key: sorted(value) for key, value in taken.items()} == {
        "x": ["encoder.bias", "encoder.weight"],  # not `encoder2`
        "y": ["heads.a.bias", "heads.a.weight"],
        "z": ["heads.b.bias", "heads.b.weight"],
        "rest": ["encoder2.bias", "encoder2.weight"],
    }
    with pytest.raises(
        ValueError, match=r"No optimizer takes 2 parameters, among them \['encoder2"
    ):
        assign(net, {"x": "encoder|heads"}, None)
    assert "encoder2.bias" not in assign(net, {"x": "encoder|heads"}, "encoder2")["x"]
    with pytest.raises(ValueError, match=r"\['x', 'y'\] both take 'encoder.weight'"):
        assign(net, {"x": "encoder", "y": "enc.*"}, None)
    with pytest.raises(ValueError, match=r"The optimizers \['y'\] have no trainable parameter"):
        assign(net, {"x": ".*", "y": "decoder"}, None)


def test_an_untaken_parameter_stops_the_run(tmp_path):
    optim = {"a": {"modules": "backbone", **CONSTANT}}
    with pytest.raises(ValueError, match="No optimizer takes 2 parameters, among them"):
        fit(make(optim), tmp_path)
    fit(make({**optim, "frozen": "head"}), tmp_path)


def test_groups_by_kind_and_by_name(tmp_path):
    optim = {
        "optimizer": {"type": "AdamW", "lr": 1.0, "weight_decay": 0.1},
        "scheduler": None,
        "groups": {"bias": {"weight_decay": 0.0}, "head": {"lr": 0.5}},
    }
    module = make(optim)
    groups = fit(module, tmp_path, max_steps=1).optimizers[0].param_groups
    found = {
        name: (g["lr"], g["weight_decay"])
        for g in groups
        for name, p in module.named_parameters()
        if any(p is q for q in g["params"])
    }
    assert found == {
        "backbone.weight": (1.0, 0.1), "backbone.bias": (1.0, 0.0),
        "head.weight": (0.5, 0.1), "head.bias": (0.5, 0.0),
    }  # fmt: skip
    with pytest.raises(ValueError, match="The group 'tail' of `groups` names no parameter"):
        fit(make({**optim, "groups": {"tail": {"lr": 0.1}}}), tmp_path)
    fit(make({**optim, "groups": {"token": {"lr": 0.1}}}), tmp_path)  # a kind may be absent


def test_layer_decay_and_what_takes_no_decay(tmp_path):
    import timm

    vit = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, num_classes=0, depth=2, embed_dim=12, num_heads=2
    )

    def loss_of(self, batch, stage):
        return {"loss": self.vit(batch["x"].new_ones(1, 3, 16, 16)).sum()}

    adam = {"type": "AdamW", "lr": 1.0, "weight_decay": 0.05}
    optim = {"optimizer": adam, "scheduler": None, "layer_decay": 0.5, "patch_embed_factor": 0.2}
    module = Module(forward=loss_of, vit=vit, optim=optim)
    groups = fit(module, tmp_path, max_steps=1).optimizers[0].param_groups
    rate = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    named = dict(vit.named_parameters())
    assert rate[id(named["blocks.1.attn.qkv.weight"])] == (0.5, 0.05)
    assert rate[id(named["blocks.0.attn.qkv.weight"])] == (0.25, 0.05)
    assert rate[id(named["patch_embed.proj.weight"])] == (pytest.approx(0.125 * 0.2), 0.05)
    assert rate[id(named["pos_embed"])] == (0.125, 0.0)
    assert rate[id(named["norm.weight"])] == (1.0, 0.0)
    bare = {"optimizer": "AdamW", "layer_decay": 0.5, "scheduler": None}
    groups = fit(Module(forward=loss_of, vit=vit, optim=bare), tmp_path, max_steps=1)
    rate = {id(p): g for g in groups.optimizers[0].param_groups for p in g["params"]}
    last = rate[id(named["blocks.1.attn.qkv.weight"])]
    assert (last["lr"], last["weight_decay"]) == (0.5e-3, 1e-2)  # AdamW's own
    plain = {"optimizer": adam, "exclude_bias_norm": True}
    groups = fit(Module(forward=loss_of, vit=vit, optim=plain), tmp_path, max_steps=1)
    rate = {
        id(p): g["weight_decay"] for g in groups.optimizers[0].param_groups for p in g["params"]
    }
    assert rate[id(named["cls_token"])] == 0.0
    assert rate[id(named["blocks.0.mlp.fc1.weight"])] == 0.05


@pytest.mark.parametrize("several", [False, True])
def test_weight_decay_and_momentum_follow_the_optimizer_step(tmp_path, several):
    entry = {
        "optimizer": {"type": "AdamW", "lr": 0.1, "weight_decay": 0.04},
        "scheduler": None,
        "exclude_bias_norm": True,
        "schedules": {"weight_decay": (0.04, 0.4), "momentum": Schedule(0.5, 0.9, "linear")},
    }
    optim = two(entry) if several else entry
    seen = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            groups = trainer.optimizers[0].param_groups
            seen.append(([g["weight_decay"] for g in groups], groups[0]["betas"][0]))

    trainer = fit(make(optim), tmp_path, accumulate_grad_batches=2, callbacks=[Watch()])
    assert trainer.global_step == 6
    for batch, (decays, momentum) in enumerate(seen):
        step = (batch + 1) // 2 - 1
        if step < 0:
            continue
        expected = 0.4 + (0.04 - 0.4) * 0.5 * (1 + math.cos(math.pi * step / 6))
        assert decays == [pytest.approx(expected), 0.0]
        assert momentum == pytest.approx(0.5 + 0.4 * step / 6)


def test_a_resumed_run_of_several_ends_as_an_uninterrupted_one(tmp_path):
    optim = two(
        {"optimizer": {"type": "AdamW", "lr": 0.1, "weight_decay": 0.1}, "frequency": 2,
         "scheduler": "CosineAnnealingLR", "schedules": {"weight_decay": (0.1, 0.4)}},
        {"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}, "frequency": 3,
         "scheduler": {"type": "StepLR", "step_size": 1}, "interval": "epoch"},
    )  # fmt: skip

    class Save(Checkpoint):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    whole, second = make(optim), make(optim, seed=1)
    fit(whole, tmp_path, max_epochs=4, callbacks=[Save()], enable_checkpointing=True)
    fit(second, tmp_path, max_epochs=4, ckpt_path=tmp_path / "half.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_frequency_of_one_optimizer_is_the_trainers_accumulation(tmp_path):
    one, other = make({**CONSTANT, "frequency": 3}), make(CONSTANT)
    trainer = fit(one, tmp_path)
    assert trainer.global_step == trainer.estimated_stepping_batches == 4
    fit(other, tmp_path, accumulate_grad_batches=3)
    close(one, other)
    with pytest.raises(ValueError, match="is 3, the Trainer accumulates 2 batches"):
        fit(make({**CONSTANT, "frequency": 3}), tmp_path, accumulate_grad_batches=2)


def test_the_hook_after_backward_sees_gradients(tmp_path):
    seen = []

    class Own(Module):
        def after_manual_backward(self):
            seen.append(self.head.weight.grad is not None)

    module = Own(forward=forward, backbone=nn.Linear(4, 3), head=nn.Linear(3, 2), optim=two())
    fit(module, tmp_path, max_steps=2)
    assert seen == [True, True]


def test_learning_rates_are_logged_by_name(tmp_path):
    metrics = fit(make(two()), tmp_path, log_every_n_steps=1).callback_metrics
    assert {"hparams/lr_encoder", "hparams/lr_rest"} <= set(metrics)


def test_clipping_per_parameter_is_dinos():
    from pathlib import Path

    import numpy as np

    with np.load(Path(__file__).parent / "golden" / "dino_clip.npz") as file:
        arrays = {k: torch.tensor(file[k]) for k in file.files}
    for value in ("3.0", "0.3"):
        names = [k.removeprefix("grad.") for k in arrays if k.startswith("grad.")]
        parameters = []
        for name in names:
            parameter = nn.Parameter(torch.zeros_like(arrays[f"grad.{name}"]).double())
            parameter.grad = arrays[f"grad.{name}"].double()
            parameters.append(parameter)
        clip([*parameters, nn.Parameter(torch.zeros(1))], float(value), "norm_per_parameter")
        for name, parameter in zip(names, parameters, strict=True):
            torch.testing.assert_close(
                parameter.grad, arrays[f"clip{value}.{name}"].double(), rtol=0, atol=1e-7
            )


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    def broken(self, batch, stage):
        return {"loss": self.backbone.weight.sum() * float("nan")}

    module = make(CONSTANT)
    module._bind(broken)
    with pytest.raises(NonFiniteLossError, match="The loss is nan at step 0. Lower the learning"):
        fit(module, tmp_path)
    module.nonfinite_check_every = 0
    fit(module, tmp_path, max_steps=1)


def test_schedules_have_their_forms():
    assert as_schedule((0.1, 0.2), "x") == Schedule(0.1, 0.2)
    assert as_schedule(3, "x").at(5, 10) == 3.0
    assert as_schedule({"start": 0, "end": 1, "shape": "linear"}, "x").at(5, 10) == 0.5
    with pytest.raises(TypeError, match="The schedule of 'x' must be a Schedule"):
        as_schedule("cosine", "x")
    with pytest.raises(ValueError, match="`shape` must be one of"):
        Schedule(0, 1, "square")


@pytest.mark.parametrize(
    ("optim", "kind", "message"),
    [
        ({"a": CONSTANT, "b": CONSTANT}, ValueError, r"Only one optimizer may take the rest"),
        ({"a": {**CONSTANT, "modules": "("}}, ValueError, r"`modules` of 'a', '\('"),
        ({"a": CONSTANT, "b": 3}, ValueError, "or hold one mapping per optimizer"),
        ({"a": CONSTANT, "frozen": 3}, TypeError, r"`optim\['frozen'\]` must be a regular"),
        ({**CONSTANT, "frequency": 0}, ValueError, "`frequency` must be an integer >= 1, got 0"),
        ({**CONSTANT, "gradient_clip_val": -1}, ValueError, "`gradient_clip_val` must be >= 0"),
        ({**CONSTANT, "gradient_clip_algorithm": "max"}, ValueError, "got 'max'"),
    ],
)
def test_wrong_grammar_is_named_at_once(optim, kind, message):
    with pytest.raises(kind, match=message):
        make(optim)


def test_a_value_that_the_optimizer_lacks_is_named(tmp_path):
    optim = {**CONSTANT, "schedules": {"eta": (0.0, 1.0)}}
    with pytest.raises(ValueError, match="SGD has no 'eta' to schedule; it has"):
        fit(make(optim), tmp_path)


@pytest.mark.parametrize(
    ("optimizer", "key"),
    [("SGD", "momentum"), ({"type": "AdamW", "weight_decay": 0.0}, "weight_decay")],
)
def test_a_schedule_of_what_is_off_everywhere_is_refused(tmp_path, optimizer, key):
    optim = {"optimizer": optimizer, "scheduler": None, "schedules": {key: (0.1, 0.9)}}
    with pytest.raises(ValueError, match=f"'{key}' has a schedule, but is 0 in every group of"):
        fit(make(optim), tmp_path)


def test_positional_arguments_are_refused():
    with pytest.raises(ValueError, match="takes its parts by name, got 1 positional"):
        Module(nn.Linear(1, 1))


def attached(module, strategy):
    """The module as `fit` finds it, on a strategy that cannot run here."""
    from types import SimpleNamespace

    module._trainer = SimpleNamespace(strategy=strategy, accumulate_grad_batches=1)
    return module


def test_strategies_that_cannot_work_are_named():
    from lightning.pytorch.strategies import FSDPStrategy

    with pytest.raises(RuntimeError, match=r"FSDPStrategy \(FSDP1\) is not supported; use FSDP2"):
        attached(make(CONSTANT), FSDPStrategy()).setup("fit")

    class DeepSpeedStrategy:
        pass

    with pytest.raises(
        RuntimeError, match=r"DeepSpeed runs one optimizer, got \['encoder', 'rest'"
    ):
        attached(make(two()), DeepSpeedStrategy()).setup("fit")
    attached(make(CONSTANT), DeepSpeedStrategy()).setup("fit")


def test_queues_wait_for_the_optimizer_step_and_for_an_epochs_last_one(tmp_path):
    from spt_losses import MoCoLoss

    def contrast(self, batch, stage):
        query = self.backbone(batch["x"])
        return {"loss": self.moco(query, query.detach())}

    torch.manual_seed(0)
    module = Module(
        forward=contrast, backbone=nn.Linear(4, 3), moco=MoCoLoss(64, 3), optim=CONSTANT
    )
    seen = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append(int(pl_module.moco.queue.pointer))

    fit(module, tmp_path, n=10, max_epochs=1, accumulate_grad_batches=2, callbacks=[Watch()])
    assert seen == [0, 4, 4, 8, 8]
    assert int(module.moco.queue.pointer) == 10  # the fifth batch is a step of its own


def with_temperature(self, batch, stage):
    out = self.head(torch.tanh(self.backbone(batch["x"])))
    return {"loss": self.loss(out, batch["x"][:, :2])}


class Tempered(nn.Module):
    """Keeps what it was called with."""

    def __init__(self):
        super().__init__()
        self.temperature, self.seen = 1.0, []

    def forward(self, a, b):
        self.seen.append(self.temperature)
        return ((a - b) / self.temperature).square().mean()


@pytest.mark.parametrize("several", [False, True])
def test_a_temperature_follows_the_optimizer_step(tmp_path, several):
    """Two batches a step, six steps; it is there before the forward pass of the step."""
    entry = {**CONSTANT, "schedules": {"loss.temperature": Schedule(0.5, 0.1, "linear")}}
    loss = Tempered()
    module = Module(
        forward=with_temperature, backbone=nn.Linear(4, 3), head=nn.Linear(3, 2), loss=loss,
        optim=two(entry) if several else entry,
    )  # fmt: skip
    fit(module, tmp_path, accumulate_grad_batches=2)
    assert loss.seen == pytest.approx([0.5 - 0.4 * (i // 2) / 6 for i in range(12)])


def test_a_teachers_temperature_can_follow_the_step_too(tmp_path):
    from spt_methods import methods

    class Encoder(nn.Sequential):
        num_features = 6

    heads = {"n_prototypes": 5, "projector_hidden_dim": 8, "projector_bottleneck_dim": 4}
    optim = {**CONSTANT, "schedules": {"temperature_teacher": (0.04, 0.07)}}
    module = methods.DINO(
        Encoder(nn.Flatten(), nn.Linear(12, 6)), **heads, optim=optim,
        warmup_epochs_temperature_teacher=0, freeze_last_layer_epochs=0,
    )  # fmt: skip
    seen = []
    soften = module.dino_loss.softmax_center_teacher
    module.dino_loss.softmax_center_teacher = lambda x, tau, **rest: (
        seen.append(tau),
        soften(x, tau, **rest),
    )[1]
    crops = {f"global_{i}": {"image": torch.rand(3, 2, 2)} for i in range(2)}
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, max_epochs=1, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader([crops] * 8, batch_size=2))
    cosine = [0.07 + (0.04 - 0.07) * 0.5 * (1 + math.cos(math.pi * i / 4)) for i in range(4)]
    assert seen == pytest.approx(cosine)


@pytest.mark.parametrize("key", ["eta", "head.weight", "loss.temperatur"])
def test_a_schedule_of_nothing_is_refused_before_the_first_step(tmp_path, key):
    module = Module(
        forward=with_temperature, backbone=nn.Linear(4, 3), head=nn.Linear(3, 2), loss=Tempered(),
        optim={**CONSTANT, "schedules": {key: (0.0, 1.0)}},
    )  # fmt: skip
    before = module.head.weight.clone()
    with pytest.raises(ValueError, match=rf"SGD has no '{key}' to schedule; it has .* Nor does"):
        fit(module, tmp_path)
    assert torch.equal(module.head.weight, before)


@pytest.mark.parametrize("optimizer", ["AdamW", {"type": "SGD", "lr": 0.1, "momentum": 0.9}])
def test_members_of_a_grid_have_their_own_rates_and_decays(tmp_path, optimizer):
    from spt_methods.backbones import AutoLinearClassifier, AutoTuneMLP

    probe = AutoLinearClassifier(
        "p", 4, 2, weight_decay=[0.0, 0.1], lr_scaling=[1.0, 10.0], normalization=["none"],
        dropout=[0.0], label_smoothing=[0.0],
    )  # fmt: skip
    mlp = AutoTuneMLP(4, 2, [[]], "m", nn.MSELoss(), lr_scaling=[1.0, 3.0])

    def both(self, batch, stage):
        x = batch["x"]
        z = self.backbone(x)
        return {"loss": z.square().mean() + self.probe(z, (x[:, 0] > 0).long())
                        + self.mlp(z.detach(), x[:, :2])["loss"]}  # fmt: skip

    module = Module(
        forward=both, backbone=nn.Linear(4, 4), probe=probe, mlp=mlp,
        optim={"optimizer": optimizer, "scheduler": None, "groups": {"mlp": {"lr_factor": 2.0}}},
    )  # fmt: skip
    groups = fit(module, tmp_path, max_steps=1).optimizers[0].param_groups
    rate = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert len(rate) == len(list(module.parameters()))
    lr, decay = (0.1, 0.0) if isinstance(optimizer, dict) else (1e-3, 1e-2)
    assert rate[id(module.backbone.weight)] == (lr, decay)
    for variant, weight, bias in zip(probe.variants, probe.weights, probe.biases, strict=True):
        expected = (pytest.approx(lr * variant.lr_scaling), variant.weight_decay)
        assert rate[id(weight)] == rate[id(bias)] == expected
    rates = [rate[id(network[0].weight)][0] for network in mlp.networks.values()]
    assert rates == pytest.approx([2 * lr, 6 * lr])


def test_groups_of_every_kind(tmp_path):
    import timm

    vit = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, num_classes=0, depth=1, embed_dim=12, num_heads=2,
        reg_tokens=2,
    )  # fmt: skip

    def loss_of(self, batch, stage):
        return {"loss": self.vit(batch["x"].new_ones(1, 3, 16, 16)).sum()}

    kinds = {"norm": 2.0, "bias": 3.0, "position": 4.0, "token": 5.0}
    optim = {"optimizer": {"type": "SGD", "lr": 1.0}, "scheduler": None,
             "groups": {kind: {"lr_factor": factor} for kind, factor in kinds.items()}}  # fmt: skip
    module = Module(forward=loss_of, vit=vit, optim=optim)
    groups = fit(module, tmp_path, max_steps=1).optimizers[0].param_groups
    rate = {id(p): g["lr"] for g in groups for p in g["params"]}
    found = {name: rate[id(p)] for name, p in vit.named_parameters()}
    expected = {
        "norm.weight": 2.0, "blocks.0.norm1.bias": 2.0, "blocks.0.attn.qkv.bias": 3.0,
        "patch_embed.proj.bias": 3.0, "pos_embed": 4.0, "cls_token": 5.0, "reg_token": 5.0,
        "blocks.0.mlp.fc1.weight": 1.0, "patch_embed.proj.weight": 1.0,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected


def test_rhythms_clips_and_leftovers_of_two_are_the_hand_written_ones(tmp_path):
    """Seven batches an epoch; one steps after 2, the other after 3, both at the epoch's end."""
    optim = two(
        {"frequency": 2, "gradient_clip_val": 0.05},
        {"frequency": 3, "gradient_clip_val": 0.02, "gradient_clip_algorithm": "value"},
    )
    module = make(optim)
    fit(module, tmp_path, n=14)
    expected = make(CONSTANT)
    parts = [list(expected.backbone.parameters()), list(expected.head.parameters())]
    steppers = [torch.optim.SGD(part, lr=0.1) for part in parts]
    held = [0, 0]  # batches whose gradients are summed up
    for _ in range(2):
        for i, batch in enumerate(DataLoader(rows(14), batch_size=2)):
            expected(batch, "fit")["loss"].backward()
            for which, frequency in enumerate((2, 3)):
                held[which] += 1
                if i < 6 and (i + 1) % frequency:
                    continue
                for parameter in parts[which]:
                    parameter.grad /= held[which]
                if which == 0:
                    nn.utils.clip_grad_norm_(parts[0], 0.05)
                else:
                    nn.utils.clip_grad_value_(parts[1], 0.02)
                steppers[which].step()
                steppers[which].zero_grad()
                held[which] = 0
    close(module, expected)


@pytest.mark.slow
def test_a_compiled_module_of_several_optimizers_trains_as_an_eager_one(tmp_path):
    """The schedule changes a number in every step, which must not stay what it was."""
    optim = two({"frequency": 2, "schedules": {"scale": (1.0, 2.0)}})

    def scaled(self, batch, stage):
        out = self.head(torch.tanh(self.backbone(batch["x"])))
        return {"loss": self.scale * (out.sum(1) - batch["x"][:, 0]).square().mean()}

    def made():
        torch.manual_seed(0)
        return Module(
            forward=scaled, backbone=nn.Linear(4, 3), head=nn.Linear(3, 2), scale=1.0, optim=optim
        )

    eager, compiled = made(), made()
    fit(eager, tmp_path)
    with torch._dynamo.config.patch(error_on_recompile=False):
        fit(torch.compile(compiled, backend="aot_eager"), tmp_path)
    close(compiled, eager)
    torch._dynamo.reset()
