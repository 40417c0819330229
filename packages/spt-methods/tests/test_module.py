"""The Module: steps, errors, and the grammar of `optim`."""

import functools

import lightning as pl
import pytest
import torch
from spt_callbacks import TeacherStudentCallback
from spt_methods import MissingLossError, Module
from spt_methods.backbones import TeacherStudentWrapper
from spt_optim import LARS
from torch import nn
from torch.utils.data import DataLoader

pytestmark = pytest.mark.filterwarnings("ignore:.*dataloader.*")


def regress(self, batch, stage):
    embedding = self.backbone(batch["x"])
    state = {"embedding": embedding, "loss": (embedding.sum(1) - 1).square().mean()}
    return state


def make(forward=regress, **kwargs):
    return Module(forward=forward, backbone=nn.Linear(4, 2), **kwargs)


def both(self, batch, stage):
    return {"loss": self.head(self.backbone(batch["x"])).square().mean()}


def of_the_student(self, batch, stage):
    return {"loss": (self.backbone.forward_student(batch["x"]) - 1).square().mean()}


SGD = {"type": "SGD", "lr": 1.0}


def loader(n=12, batch_size=2):
    rows = torch.randn(n, 4, generator=torch.Generator().manual_seed(0))
    return DataLoader([{"x": row} for row in rows], batch_size=batch_size)


def fit(module, tmp_path, *loaders, **kwargs):
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        **{"max_epochs": 2, **kwargs},
    )
    trainer.fit(module, *(loaders or (loader(),)))
    return trainer


def test_the_default_is_adamw_with_a_cosine_over_the_run(tmp_path):
    trainer = fit(make(), tmp_path)
    (optimizer,) = trainer.optimizers
    assert type(optimizer) is torch.optim.AdamW
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-12)
    assert trainer.lr_scheduler_configs[0].scheduler.T_max == 12


@pytest.mark.parametrize(
    ("optim", "kind"),
    [
        ("SGD", torch.optim.SGD),
        (torch.optim.Adam, torch.optim.Adam),
        (functools.partial(torch.optim.SGD, lr=0.5), torch.optim.SGD),
        ({"optimizer": {"type": "LARS", "lr": 5, "weight_decay": 1e-6}}, LARS),
        ({"optimizer": "AdamW", "scheduler": None}, torch.optim.AdamW),
    ],
)
def test_forms_of_optim(tmp_path, optim, kind):
    trainer = fit(make(optim=optim), tmp_path)
    assert type(trainer.optimizers[0]) is kind
    scheduled = not (isinstance(optim, dict) and "scheduler" in optim)
    assert len(trainer.lr_scheduler_configs) == scheduled


@pytest.mark.parametrize(
    ("interval", "accumulate", "horizon"), [("step", 1, 12), ("step", 3, 4), ("epoch", 1, 2)]
)
def test_the_horizon_counts_the_schedulers_own_steps(tmp_path, interval, accumulate, horizon):
    optim = {
        "optimizer": {"type": "SGD", "lr": 1.0},
        "scheduler": {"type": "CosineAnnealingLR"},
        "interval": interval,
    }
    trainer = fit(make(optim=optim), tmp_path, accumulate_grad_batches=accumulate)
    assert trainer.lr_scheduler_configs[0].scheduler.T_max == horizon
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-9)


class Stream(torch.utils.data.IterableDataset):
    """Rows without a known number."""

    def __iter__(self):
        rows = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
        yield from ({"x": row} for row in rows)


@pytest.mark.parametrize(("interval", "horizon"), [("step", 5), ("epoch", 4)])
def test_the_horizon_over_a_stream_is_what_the_trainer_says(tmp_path, interval, horizon):
    optim = {"optimizer": SGD, "scheduler": "CosineAnnealingLR", "interval": interval}
    stream = DataLoader(Stream(), batch_size=2)
    trainer = fit(make(optim=optim), tmp_path, stream, max_steps=5, max_epochs=4)
    assert trainer.lr_scheduler_configs[0].scheduler.T_max == horizon


def test_the_horizon_of_a_second_optimizer_over_a_stream(tmp_path):
    each = {"optimizer": SGD, "scheduler": "CosineAnnealingLR"}
    parts = {"a": {"modules": "backbone", **each}, "b": {"modules": "head", "frequency": 2, **each}}
    module = make(optim=parts, head=nn.Linear(2, 2), forward=both)
    trainer = fit(module, tmp_path, DataLoader(Stream(), batch_size=2), max_steps=6, max_epochs=-1)
    assert trainer.global_step == 6
    assert [scheduler.T_max for scheduler in module.lr_schedulers()] == [6, 3]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_compiled_module_trains_as_itself(tmp_path):
    ends = []
    for compiled in (False, True):
        torch.manual_seed(0)
        module = make(optim={"optimizer": SGD, "scheduler": None})
        whole = torch.compile(module, backend="eager") if compiled else module
        fit(whole, tmp_path)
        ends.append(module.state_dict())
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value)


def test_a_loss_of_evaluation_is_a_tensor_too(tmp_path):
    def forward(self, batch, stage):
        return regress(self, batch, stage) if stage == "fit" else {"loss": 1.0}

    with pytest.raises(
        MissingLossError, match="must return a tensor under 'loss' if it returns one"
    ):
        fit(make(forward=forward), tmp_path, loader(), loader())


def test_what_callbacks_see_after_a_step_has_no_graph(tmp_path):
    class Look(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            assert not outputs["embedding"].requires_grad
            assert not outputs["parts"][0].requires_grad

    def parts(self, batch, stage):
        state = regress(self, batch, stage)
        return {**state, "parts": [state["embedding"] * 2]}

    fit(make(forward=parts), tmp_path, callbacks=[Look()])


def test_a_teacher_moves_in_a_bare_trainer(tmp_path):
    """Without a word of the user's; a callback of theirs, a subclass too, is not doubled."""

    class Own(TeacherStudentCallback):
        pass

    moved = []
    for callbacks in ([], [Own()]):
        torch.manual_seed(0)
        backbone = TeacherStudentWrapper(nn.Linear(4, 2), base_ema_coefficient=0.5)
        module = Module(forward=of_the_student, backbone=backbone, optim="SGD")
        before = backbone.teacher.weight.clone()
        trainer = fit(module, tmp_path, callbacks=callbacks)
        moved.append(backbone.teacher.weight - before)
        assert sum(isinstance(c, TeacherStudentCallback) for c in trainer.callbacks) == 1
    assert moved[0].abs().sum() > 0
    assert torch.equal(*moved)


@pytest.mark.parametrize(
    "optim",
    [
        {"scheduler": "ReduceLROnPlateau", "monitor": "fit/loss"},
        {"scheduler": {"type": "ReduceLROnPlateau", "monitor": "fit/loss"}},
    ],
)
def test_a_plateau_follows_its_metric(tmp_path, optim):
    optim = {"optimizer": "SGD", **optim}
    trainer = fit(make(optim=optim), tmp_path)
    assert trainer.lr_scheduler_configs[0].monitor == "fit/loss"


@pytest.mark.filterwarnings("ignore:.*will run with no optimizer")
@pytest.mark.parametrize("optim", [None, False, {}])
def test_no_optimizer_trains_nothing(tmp_path, optim):
    module = make(optim=optim)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    fit(module, tmp_path)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


def test_frozen_parameters_stay_out_of_the_optimizer(tmp_path):
    module = make(optim="SGD")
    module.backbone.bias.requires_grad_(False)
    trainer = fit(module, tmp_path)
    assert trainer.optimizers[0].param_groups[0]["params"] == [module.backbone.weight]


def test_accumulation_equals_the_large_batch(tmp_path):
    results = []
    for size, accumulate in ((6, 1), (2, 3)):
        torch.manual_seed(0)
        module = make(optim={"optimizer": {"type": "SGD", "lr": 0.1}, "scheduler": None})
        trainer = fit(
            module, tmp_path, loader(batch_size=size), accumulate_grad_batches=accumulate,
            gradient_clip_val=0.5,
        )  # fmt: skip
        results.append(module.backbone.weight.detach())
        assert trainer.global_step == 4
    torch.testing.assert_close(*results)


def test_several_validation_loaders_and_mixed_precision(tmp_path):
    loaders = [loader(), loader(4)]
    trainer = fit(make(), tmp_path, loader(), loaders, precision="bf16-mixed")
    assert {"fit/loss", "hparams/lr"} <= set(trainer.callback_metrics)


def test_each_validation_loader_has_its_own_loss(tmp_path):
    module, loaders = make(optim=None), [loader(), loader(4)]
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.validate(module, loaders, verbose=False)
    for i, part in enumerate(loaders):
        rows = torch.stack([sample["x"] for sample in part.dataset])
        expected = regress(module, {"x": rows}, "validate")["loss"]
        found = trainer.callback_metrics[f"validate/loss/dataloader_idx_{i}"]
        torch.testing.assert_close(found, expected.detach())


def test_the_batch_is_not_written_to(tmp_path):
    seen = []

    def forward(self, batch, stage):
        seen.append(sorted(batch))
        return regress(self, batch, stage)

    fit(make(forward), tmp_path)
    assert all(keys == ["x"] for keys in seen)


def test_a_forward_may_be_a_dotted_path_or_a_method():
    module = Module(forward="spt_methods.forward.simclr")
    assert module.forward.__name__ == "simclr"

    class Own(Module):
        def forward(self, batch, stage):
            return {"stage": stage}

    assert Own()(None, "fit") == {"stage": "fit"}


def test_a_forward_without_a_loss_names_what_it_returned(tmp_path):
    def nothing(self, batch, stage):
        return {"embedding": batch["x"], "los": 0.0}

    message = (
        "the forward function 'nothing' of Module must return a scalar tensor under 'loss', got "
        r"nothing; it returned \['embedding', 'los'\]"
    )
    with pytest.raises(MissingLossError, match=message):
        fit(make(nothing), tmp_path)

    def vector(self, batch, stage):
        return {"loss": self.backbone(batch["x"])}

    with pytest.raises(MissingLossError, match=r"got a tensor of shape \(2, 2\)"):
        fit(make(vector), tmp_path)

    def bare(self, batch, stage):
        return self.backbone(batch["x"]).mean()

    with pytest.raises(TypeError, match=r"must return a dict, got a tensor of shape \(\)"):
        fit(make(bare), tmp_path)


def test_the_transform_of_the_data_set_comes_before_the_data_modules(tmp_path):
    def scaled(factor):
        return lambda batch: {"x": batch["x"] * 0 + factor}

    class Rows(list):
        gpu_transform = None

    class Data(pl.LightningDataModule):
        gpu_transform = None

        def __init__(self, rows):
            super().__init__()
            self.rows = rows

        def train_dataloader(self):
            return DataLoader(self.rows, batch_size=2)

    seen = []

    def forward(self, batch, stage):
        seen.append(batch["x"].max().item())
        return regress(self, batch, stage)

    for own, shared, expected in ((None, None, 0.0), (None, 2.0, 2.0), (3.0, 2.0, 3.0)):
        rows = Rows([{"x": torch.zeros(4)}] * 4)
        data = Data(rows)
        rows.gpu_transform = None if own is None else scaled(own)
        data.gpu_transform = None if shared is None else scaled(shared)
        seen.clear()
        fit(make(forward), tmp_path, data, max_epochs=1)
        assert set(seen) == {expected}


def test_a_gpu_transform_on_the_module_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match="it belongs to the data"):
        fit(make(gpu_transform=dict), tmp_path)


@pytest.mark.parametrize(
    ("kwargs", "kind", "message"),
    [
        ({"forward": 3}, TypeError, "`forward` must be a function"),
        (
            {"forward": "spt_methods.forward.nope"},
            ValueError,
            "no forward function at 'spt_methods",
        ),
        ({"forward": "nope"}, ValueError, "no forward function at 'nope'"),
        ({"optim": 3}, TypeError, "`optim` must be a name"),
        ({"optim": {"lr": 1}}, ValueError, "must have the key 'optimizer'"),
        ({"optim": {"a": {"lr": 1}}}, ValueError, "'a' must have the key 'optimizer'"),
        ({"optim": {"optimizer": "SGD", "intervall": "step"}}, ValueError, "intervall"),
        ({"optim": {"optimizer": "SGD", "interval": "batch"}}, ValueError, "'step' or 'epoch'"),
    ],
)
def test_wrong_arguments_are_named(kwargs, kind, message):
    with pytest.raises(kind, match=message):
        Module(**kwargs)


@pytest.mark.parametrize("name", ["setup", "training_step", "device", "log", "parameters"])
def test_a_component_may_not_replace_a_method(name):
    with pytest.raises(
        ValueError, match=f"The component '{name}' would replace what Module itself"
    ):
        make(**{name: nn.Identity()})


def test_attributes_of_a_class_may_be_given():
    class Own(Module):
        temperature = 0.1

    module = Own(forward=regress, temperature=0.2, nonfinite_check_every=0, strict_loading=False)
    assert (module.temperature, module.nonfinite_check_every) == (0.2, 0)
    assert module.strict_loading is False


@pytest.mark.parametrize(
    ("forward", "missing"),
    [
        ("simclr", "simclr_loss"),
        ("byol", "projector"),
        ("vicreg", "projector"),
        ("dino", "projector"),
    ],
)
def test_a_part_that_a_forward_function_lacks_is_named(tmp_path, forward, missing):
    parts = {"projector": nn.Linear(2, 2)} if forward == "simclr" else {}
    if forward in ("byol", "dino"):
        backbone = TeacherStudentWrapper(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    else:
        backbone = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    module = Module(forward=f"spt_methods.forward.{forward}", backbone=backbone, **parts)
    views = [{"image": torch.rand(4, 1, 2, 2)}, {"image": torch.rand(4, 1, 2, 2)}]
    batch = {"global_0": views[0], "global_1": views[1]} if forward == "dino" else {"views": views}
    message = f"forward function '{forward}' of Module needs '{missing}', which is none of the"
    with pytest.raises(ValueError, match=message):
        fit(module, tmp_path, DataLoader([batch], batch_size=None))


def test_an_attribute_error_of_another_kind_stays_what_it_is(tmp_path):
    def wrong(self, batch, stage):
        return {"loss": batch["x"].not_there}

    with pytest.raises(AttributeError, match="'Tensor' object has no attribute 'not_there'"):
        fit(make(wrong), tmp_path)


def test_a_custom_function_shards_under_fsdp2():
    from types import SimpleNamespace

    from lightning.pytorch.strategies import ModelParallelStrategy

    seen = []
    module = make(parallelize_fn=lambda module, mesh: seen.append((module, mesh)))
    strategy = ModelParallelStrategy()
    strategy.averages_whole_parameters = True
    module._trainer, module._device_mesh = SimpleNamespace(strategy=strategy), "mesh"
    module.configure_model()
    assert seen == [(module, "mesh")]


def test_unknown_optimizers_and_frozen_modules_are_named(tmp_path):
    with pytest.raises(ValueError, match="Unknown optimizer 'AdamWW'; did you mean 'AdamW'"):
        fit(make(optim="AdamWW"), tmp_path)
    frozen = make()
    frozen.requires_grad_(False)
    with pytest.raises(ValueError, match="Module has no trainable parameter"):
        fit(frozen, tmp_path)


def test_hyper_parameters_are_recorded():
    assert make(hparams={"lr": 0.1}).hparams == {"lr": 0.1}
