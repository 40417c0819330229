"""Every method of the table: trains, embeds, resumes, and is made of what its row says."""

import importlib
import inspect
from pathlib import Path

import lightning as pl
import pytest
import spt_callbacks
import spt_losses
import torch
from spt_methods import forward, methods
from spt_methods.catalogue import CATALOGUE, table
from spt_methods.methods._method import Method
from torch import nn
from torch.utils.data import DataLoader

HERE = Path(__file__).parent
ROWS = {row.method: row for row in CATALOGUE}

# the smallest sizes that each constructor takes
SMALL = {
    "BarlowTwins": {"projector_dims": (8, 6)},
    "BYOL": {"projector_dims": (8, 4), "predictor_dims": (8, 4)},
    "SimCLR": {"projector_dims": (8, 4)},
    "SimSiam": {"projector_dim": 8, "predictor_hidden_dim": 4},
    "VICReg": {"projector_dims": (8, 6)},
}
ENCODERS = {
    "two views": ["resnet10t", "vit_tiny_patch16_224", "convnext_atto"],
    "multi-crop": ["vit_tiny_patch16_224"],
    "one image": ["vit_tiny_patch16_224"],
}
SIZE = {"resnet10t": {}, "convnext_atto": {}, "vit_tiny_patch16_224": {"image_size": 32}}


def build(name, encoder="resnet10t", **kwargs):
    torch.manual_seed(0)
    arguments = {**SMALL[name], **SIZE.get(encoder, {}), **kwargs}
    return getattr(methods, name)(
        encoder, optim={"optimizer": {"type": "SGD", "lr": 0.05}}, **arguments
    )


def rows_of(n=8):
    images = torch.rand(2, n, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return [
        {"views": [{"image": a}, {"image": b}], "label": i % 2}
        for i, (a, b) in enumerate(zip(*images, strict=True))
    ]


def train(tmp_path, module, max_epochs=1, ckpt_path=None, callbacks=()):
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=max_epochs, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        callbacks=list(callbacks),
    )  # fmt: skip
    trainer.fit(module, DataLoader(rows_of(), batch_size=4), ckpt_path=ckpt_path)
    return trainer


def test_every_class_has_its_row_and_every_row_its_parts():
    classes = {
        name
        for name, thing in vars(methods).items()
        if inspect.isclass(thing) and issubclass(thing, Method)
    }
    assert classes == set(ROWS)
    for row in CATALOGUE:
        function = getattr(forward, row.forward)
        module = importlib.import_module(function.__module__)
        assert getattr(methods, row.method).__module__ == function.__module__
        assert f"https://arxiv.org/abs/{row.paper}" in module.__doc__
        assert "github.com" in module.__doc__, "cite the official code"
        assert all(hasattr(spt_losses, name) for name in row.losses)
        assert all(hasattr(spt_callbacks, name) for name in row.callbacks)
        assert (HERE / row.parity).exists()
        assert f"`{row.method}`" in table()


@pytest.mark.parametrize("name", ROWS)
def test_a_row_names_the_callbacks_and_losses_that_the_class_has(name):
    module = build(name)
    brought = {type(callback).__name__ for callback in module.method_callbacks()}
    assert brought == set(ROWS[name].callbacks)
    held = {type(part).__name__ for part in module.modules() if "Loss" in type(part).__name__}
    assert held == set(ROWS[name].losses)
    assert module.forward.__func__ is getattr(forward, ROWS[name].forward)


CASES = [(row.method, encoder) for row in CATALOGUE for encoder in ENCODERS[row.views]]


@pytest.mark.parametrize(("name", "encoder"), CASES)
def test_one_step_on_every_family_reaches_every_parameter(name, encoder):
    module = build(name, encoder).train()
    batch = next(iter(DataLoader(rows_of(), batch_size=8)))
    module(batch, "fit")["loss"].backward()
    assert [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
def test_there_is_an_embedding_in_every_stage(name, stage):
    module = build(name).train(stage == "fit")
    batch = next(iter(DataLoader(rows_of(), batch_size=4)))
    if stage != "fit":
        batch = {**batch["views"][0], "label": batch["label"]}
    state = module(batch, stage)
    assert len(state["embedding"]) == len(state["label"]) == (8 if stage == "fit" else 4)
    assert ("loss" in state) == (stage == "fit")


@pytest.mark.filterwarnings("ignore:.*dataloader.*")
@pytest.mark.parametrize("name", ROWS)
def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path, name):
    whole, first, second = (build(name) for _ in range(3))
    train(tmp_path, whole, max_epochs=2)

    class Save(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 0:
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    train(tmp_path, first, max_epochs=2, callbacks=[Save()])
    train(tmp_path, second, max_epochs=2, ckpt_path=tmp_path / "half.ckpt")
    for name_, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name_]), name_


@pytest.mark.filterwarnings("ignore:.*dataloader.*")
@pytest.mark.parametrize(
    "name", [n for n, r in ROWS.items() if "TeacherStudentCallback" in r.callbacks]
)
def test_the_teacher_moves_in_a_bare_trainer_and_once_with_the_users_callback(tmp_path, name):
    moved = []
    for own in ([], [spt_callbacks.TeacherStudentCallback()]):
        module = build(name)
        before = module.backbone.teacher.state_dict()["conv1.0.weight"].clone()
        trainer = train(tmp_path, module, callbacks=own)
        moved.append(module.backbone.teacher.state_dict()["conv1.0.weight"] - before)
        kinds = [type(c).__name__ for c in trainer.callbacks]
        assert kinds.count("TeacherStudentCallback") == 1
        assert module.backbone.ema_coefficient > module.backbone.base_ema_coefficient
    assert moved[0].abs().sum() > 0
    assert torch.equal(*moved)


@pytest.mark.parametrize("name", ROWS)
def test_the_encoder_exports(name):
    module = build(name).eval()
    encoder = getattr(module.backbone, "student", module.backbone)
    images = torch.rand(2, 3, 32, 32)
    program = torch.export.export(encoder, (images,))
    torch.testing.assert_close(program.module()(images), encoder(images), rtol=1e-4, atol=1e-5)


def test_an_encoder_as_a_module_cannot_take_settings_of_named_ones():
    encoder = nn.Flatten()
    encoder.num_features = 3
    with pytest.raises(ValueError, match="are for encoders given by name; got the module Flatten"):
        methods.SimCLR(encoder, pretrained=True)
