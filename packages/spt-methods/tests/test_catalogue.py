"""Every method of the table: trains, embeds, resumes, and is made of what its row says."""

import copy
import importlib
import inspect
from pathlib import Path

import lightning as pl
import pytest
import spt_callbacks
import spt_losses
import spt_methods
import torch
from spt_methods import forward, methods
from spt_methods.backbones import RandomProjectionTokenizer, TeacherStudentWrapper, ViTTokens
from spt_methods.catalogue import CATALOGUE, table
from spt_methods.masking import SeededMasking
from spt_methods.methods._method import Method
from torch import nn
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
ROWS = {row.method: row for row in CATALOGUE}

# the smallest sizes that each constructor takes
PROTOTYPES = {"n_prototypes": 16, "projector_hidden_dim": 16, "projector_bottleneck_dim": 8,
              "drop_path_rate": 0.0}  # fmt: skip
TINY_DECODER = {"decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2}
TEACHER = ViTTokens(
    "vit_tiny_patch16_224", img_size=64, depth=1, class_token=False, global_pool="avg"
)
VIDEO = {"num_frames": 4, "predictor_embed_dim": 48, "predictor_depth": 1}
SMALL = {
    "SALT": {"teacher": TEACHER, "predictor_embed_dim": 48, "predictor_depth": 1},
    "VJEPA": VIDEO,
    "BEiT": {"tokenizer": RandomProjectionTokenizer(8), "drop_path_rate": 0.0},
    "CMAE": {
        **TINY_DECODER,
        "feature_decoder_depth": 1,
        "projector_hidden_dim": 8,
        "projector_dim": 4,
        "pixel_shift": 0,
    },
    "CrossMAE": TINY_DECODER,
    "Data2Vec": {"top_k_blocks": 1, "drop_path_rate": 0.0},
    "iBOT": {
        "n_cls_prototypes": 16,
        **{k: v for k, v in PROTOTYPES.items() if k != "n_prototypes"},
    },
    "iGPT": {"head_dim": 16, "head_depth": 1, "feature_layers": 1},
    "NEPA": {},
    "IJEPA": {"predictor_embed_dim": 48, "predictor_depth": 1},
    "MAE": TINY_DECODER,
    "MaskFeat": {},
    "DeiT": {"num_classes": 4, "drop_path_rate": 0.0},
    "MIMRefiner": {
        "num_heads": 2,
        "projector_dims": (8, 4),
        "predictor_hidden_dim": 8,
        "queue_length": 16,
        "top_k": 2,
    },
    "MSN": {"n_prototypes": 16, "projector_hidden_dim": 16, "projector_dim": 8},
    "SimMIM": {},
    "CLIP": {"text_width": 16, "text_depth": 1, "text_heads": 2, "embed_dim": 8},
    "SigLIP": {"text_width": 16, "text_depth": 1, "text_heads": 2},
    "BarlowTwins": {"projector_dims": (8, 6)},
    "BYOL": {"projector_dims": (8, 4), "predictor_dims": (8, 4)},
    "DINO": PROTOTYPES,
    "DINOv2": PROTOTYPES,
    "DINOv3": {**PROTOTYPES, "gram_start_step": 1, "gram_update_every": 1},
    "LeJEPA": {"projector_dims": (8, 4), "n_slices": 8, "drop_path_rate": 0.0},
    "MoCov2": {"projector_dims": (8, 4), "queue_length": 16},
    "MoCov3": {"projector_dims": (8, 8, 4), "predictor_hidden_dim": 8},
    "NNCLR": {"projector_dims": (8, 8, 4), "predictor_hidden_dim": 8, "queue_length": 16},
    "PIRL": {"num_samples": 8, "projector_dim": 4},
    "SimCLR": {"projector_dims": (8, 4)},
    "SimSiam": {"projector_dim": 8, "predictor_hidden_dim": 4},
    "SwAV": {"projector_dims": (8, 4), "n_prototypes": 6, "freeze_prototypes_steps": 1},
    "TiCO": {"projector_dims": (8, 4)},
    "VICReg": {"projector_dims": (8, 6)},
    "VICRegL": {"projector_dims": (8, 6), "map_dims": (8, 4), "num_matches": (2, 1)},
    "WMSE": {"projector_dims": (8, 2), "w_size": 4},
}
FAMILIES = ["resnet10t", "vit_tiny_patch16_224", "convnext_atto"]
TRANSFORMERS = (
    "BEiT",
    "CMAE",
    "CrossMAE",
    "Data2Vec",
    "DINOv2",
    "iBOT",
    "IJEPA",
    "MAE",
    "MaskFeat",
    "MIMRefiner",
    "MSN",
    "SimMIM",
)
ENCODERS = {
    "PIRL": FAMILIES[:1],
    **dict.fromkeys(("iGPT", "NEPA"), FAMILIES[1:2]),
    **dict.fromkeys(("SALT", "VJEPA"), FAMILIES[1:2]),
    **dict.fromkeys(TRANSFORMERS, FAMILIES[1:2]),
    "DINOv3": ["vit_tiny_patch16_dinov3_qkvb"],
}  # others take every one
SETTINGS = {
    "vit_tiny_patch16_dinov3_qkvb": {"image_size": 64, "encoder_kwargs": {"depth": 2}},
    "resnet10t": {},
    "convnext_atto": {},
    "vit_tiny_patch16_224": {"image_size": 64, "encoder_kwargs": {"depth": 2}},
}


def encoders_of(name):
    return ENCODERS.get(name, FAMILIES)


def build(name, encoder=None, **kwargs):
    torch.manual_seed(0)
    encoder = encoder or encoders_of(name)[0]
    arguments = {**SMALL[name], **SETTINGS[encoder], **kwargs}
    arguments.setdefault("optim", {"optimizer": {"type": "SGD", "lr": 0.05}})
    return getattr(methods, name)(encoder, **arguments)


def rows_of(name, n=8):
    """Rows with what the method reads in training."""
    generator = torch.Generator().manual_seed(1)
    large = torch.rand(2, n, 3, 64, 64, generator=generator)
    small = torch.rand(2, n, 3, 32, 32, generator=generator)
    box = torch.tensor([0, 0, 48, 48])
    rows = []
    for i in range(n):
        if ROWS[name].views == "multi-crop":
            rows.append(
                {f"{kind}_{k}": {"image": crops[k, i], "label": i % 2}
                 for kind, crops in (("global", large), ("local", small)) for k in range(2)}
            )  # fmt: skip
        elif ROWS[name].views == "one image":
            rows.append({"image": large[0, i], "label": i % 2, "sample_idx": i})
        elif ROWS[name].views == "one video":
            video = torch.stack([large[0, i], large[1, i]]).repeat_interleave(2, 0)
            rows.append({"video": video, "label": i % 2})
        elif ROWS[name].views == "image and text":
            texts = ["a dog", "two cats"]
            rows.append({"image": large[0, i], "label": i % 2, "text": texts[i % 2]})
        else:
            views = [{"image": large[k, i], "RandomResizedCrop": box + 8 * k} for k in range(2)]
            rows.append({"views": views, "label": i % 2})
    return rows


def batch_of(name, n=8):
    return next(iter(DataLoader(rows_of(name), batch_size=n)))


def name_of(module):
    return type(module).__name__


def train(tmp_path, module, max_epochs=1, ckpt_path=None, callbacks=()):
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=max_epochs, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        callbacks=list(callbacks),
    )  # fmt: skip
    trainer.fit(module, DataLoader(rows_of(name_of(module)), batch_size=4), ckpt_path=ckpt_path)
    return trainer


def test_every_class_has_its_row_and_every_row_its_parts():
    classes = {
        name
        for name, thing in vars(methods).items()
        if inspect.isclass(thing) and issubclass(thing, Method) and thing is not Method
    }
    assert classes == set(ROWS)
    for row in CATALOGUE:
        function = getattr(forward, row.forward)
        module = importlib.import_module(function.__module__)
        assert getattr(methods, row.method).__module__ == function.__module__
        assert f"https://arxiv.org/abs/{row.paper}" in module.__doc__
        assert "github.com" in module.__doc__, "cite the official code"
        assert all(hasattr(spt_losses, name) for name in row.losses)
        owners = (spt_callbacks, spt_methods)
        assert all(any(hasattr(owner, name) for owner in owners) for name in row.callbacks)
        assert (HERE / row.parity).exists()
        assert f"`{row.method}`" in table()


@pytest.mark.parametrize("name", ROWS)
def test_a_row_names_the_callbacks_and_losses_that_the_class_has(name):
    module = build(name)
    brought = {type(callback).__name__ for callback in module.method_callbacks()}
    assert brought == set(ROWS[name].callbacks)
    held = {type(part).__name__ for part in module.children() if "Loss" in type(part).__name__}
    assert held == set(ROWS[name].losses)
    assert module.forward.__func__ is getattr(forward, ROWS[name].forward)


@pytest.mark.parametrize("name", ROWS)
def test_every_argument_is_recorded(name):
    module = build(name)
    arguments = list(inspect.signature(type(module)).parameters.values())[1:]  # but the encoder
    named = {p.name for p in arguments if p.kind is not inspect.Parameter.VAR_KEYWORD}
    assert named <= set(module.hparams)
    for argument in arguments:
        if isinstance(argument.default, float) and argument.name not in SMALL.get(name, {}):
            assert module.hparams[argument.name] == argument.default
    assert module.hparams["method"] == ROWS[name].forward
    assert "optim" not in module.hparams


def test_arguments_of_a_subclass_are_recorded_too():
    class Own(methods.SimCLR):
        def __init__(self, encoder, margin=0.5, **rest):
            super().__init__(encoder, temperature=0.3, **rest)
            self.margin = margin

    module = Own(encoders_of("SimCLR")[0], projector_dims=(8, 4), in_chans=3, hparams={"mine": 1})
    found = {k: module.hparams[k] for k in ("margin", "temperature", "in_chans", "mine")}
    assert found == {"margin": 0.5, "temperature": 0.3, "in_chans": 3, "mine": 1}
    assert module.hparams["projector_dims"] == [8, 4]
    with pytest.raises(
        TypeError, match="SimCLR has no argument 'tempreature'. Did you mean 'temperature'"
    ):
        methods.SimCLR(encoders_of("SimCLR")[0], tempreature=0.1)
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'tokenizer'"):
        methods.BEiT()


CASES = [(row.method, encoder) for row in CATALOGUE for encoder in encoders_of(row.method)]


@pytest.mark.parametrize(("name", "encoder"), CASES)
def test_one_step_on_every_family_reaches_every_parameter(name, encoder):
    module = build(name, encoder).train()
    module(batch_of(name), "fit")["loss"].backward()
    assert [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("name", ROWS)
def test_a_step_does_not_wait_for_the_device(name, monkeypatch):
    """On a device without values nothing can be read back: ``.item()``, ``nonzero``, ``.cpu()`` raise."""

    def next_generator(self, device, shared=False):
        self._draw += 1
        self.draws.fill_(self._draw)
        return torch.Generator().manual_seed(self._draw)  # there is none for that device

    monkeypatch.setattr(SeededMasking, "next_generator", next_generator)
    module = copy.deepcopy(build(name)).to("meta").train()  # what methods share stays
    batch = tree_map_only(torch.Tensor, lambda x: x.to("meta"), batch_of(name))
    if ROWS[name].views == "image and text":
        batch["tokens"] = module.tokenizer(batch.pop("text"))
    module(batch, "fit")["loss"].backward()
    for part in module.modules():
        if isinstance(part, TeacherStudentWrapper):
            part.update_ema_coefficient(1, 10)
            part.update_teacher()
    for read in (torch.Tensor.item, torch.Tensor.nonzero, torch.Tensor.cpu):
        with pytest.raises((RuntimeError, NotImplementedError), match="[Mm]eta"):
            read(torch.ones(1, device="meta"))  # what the test relies on


@pytest.mark.parametrize("name", [n for n, row in ROWS.items() if row.views == "multi-crop"])
def test_crops_of_one_size_go_through_the_encoder_once(name):
    encoder = next(e for e in encoders_of(name) if "vit" in e)
    module = build(name, encoder).train()
    pair = module.backbone
    seen = {}
    for role in ("student", "teacher") if hasattr(pair, "student") else ("student",):
        network = getattr(pair, role, pair)
        embed = getattr(network, "vit", network).patch_embed
        sizes = seen[role] = []
        embed.register_forward_hook(lambda m, i, o, sizes=sizes: sizes.append(tuple(i[0].shape)))
    module(batch_of(name, 4), "fit")
    teachers, masked = (4, 4) if name == "MSN" else (8, 8)  # MSN's first large crop is the target
    assert seen["student"] == [(masked, 3, 64, 64), (8, 3, 32, 32)]
    assert seen.get("teacher", [(teachers, 3, 64, 64)]) == [(teachers, 3, 64, 64)]


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
def test_there_is_an_embedding_in_every_stage(name, stage):
    module = build(name).train(stage == "fit")
    batch = batch_of(name, 4)
    if stage != "fit":
        batch = {"image": torch.rand(4, 3, 64, 64), "label": torch.arange(4)}
        if ROWS[name].views == "one video":
            batch = {"video": torch.rand(4, 4, 3, 64, 64), "label": torch.arange(4)}
    state = module(batch, stage)
    assert len(state["embedding"]) == len(state["label"])
    assert len(state["embedding"]) in ((4, 8) if stage == "fit" else (4,))
    assert state["embedding"].ndim == 2
    assert ("loss" in state) == (stage == "fit" or name == "DeiT")  # whose task is the loss


@pytest.mark.filterwarnings("ignore:.*dataloader.*")
@pytest.mark.parametrize("name", ROWS)
def test_the_papers_recipe_trains(tmp_path, name):
    module = build(name, optim="paper", batch_size=4)
    recipe = module.paper
    trainer = train(tmp_path, module)
    (optimizer,) = trainer.optimizers
    assert type(optimizer).__name__ == recipe.optimizer
    rates = [group["initial_lr"] for group in optimizer.param_groups]
    assert max(rates) == pytest.approx(recipe.rate(4))
    assert max(g["initial_weight_decay"] if "initial_weight_decay" in g else g["weight_decay"]
               for g in optimizer.param_groups) == pytest.approx(recipe.weight_decay)  # fmt: skip
    taken = sum(len(group["params"]) for group in optimizer.param_groups)
    assert taken == sum(p.requires_grad for p in module.parameters())


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
        student = module.backbone.student.named_parameters()
        first = next(n for n, p in student if p.requires_grad)
        before = module.backbone.teacher.state_dict()[first].clone()
        trainer = train(tmp_path, module, callbacks=own)
        moved.append(module.backbone.teacher.state_dict()[first] - before)
        kinds = [type(c).__name__ for c in trainer.callbacks]
        assert kinds.count("TeacherStudentCallback") == 1
        wrapper = module.backbone
        if wrapper.base_ema_coefficient != wrapper.final_ema_coefficient:
            assert wrapper.ema_coefficient > wrapper.base_ema_coefficient
    assert moved[0].abs().sum() > 0
    assert torch.equal(*moved)


@pytest.mark.parametrize("name", ROWS)
def test_the_encoder_exports(name):
    module = build(name).eval()
    encoder = getattr(module.backbone, "student", module.backbone)
    images = torch.rand(2, 3, 64, 64)
    if ROWS[name].views == "one video":
        images = torch.rand(2, 3, 4, 64, 64)
    program = torch.export.export(encoder, (images,))
    found, expected = (
        getattr(out, "embedding", out) for out in (program.module()(images), encoder(images))
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_an_encoder_as_a_module_cannot_take_settings_of_named_ones():
    encoder = nn.Flatten()
    encoder.num_features = 3
    for setting in ({"pretrained": True}, {"in_chans": 1}, {"image_size": 64}):
        name = next(iter(setting))
        with pytest.raises(ValueError, match=rf"came with the module Flatten.*\['{name}'\]"):
            methods.SimCLR(encoder, **setting)


@pytest.mark.parametrize("name", ["SimCLR", "DINO", "MAE"])
def test_a_checkpoint_loads_by_itself(tmp_path, name):
    """The constructor's arguments, the encoder's name among them, are in it."""
    sizes = {"depth": 1, "embed_dim": 24, "num_heads": 2}
    kwargs = {"encoder_kwargs": sizes, "image_size": 32, **SMALL.get(name, {})}
    module = getattr(methods, name)("vit_tiny_patch16_224", **kwargs)
    path = tmp_path / "whole.ckpt"
    trainer = pl.Trainer(logger=False, default_root_dir=tmp_path, accelerator="cpu")
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)
    loaded = type(module).load_from_checkpoint(path)
    assert dict(loaded.hparams) == dict(module.hparams)
    for name_, value in module.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name_])


def test_queues_are_not_sent_to_the_other_ranks_with_every_batch(tmp_path):
    """Each rank has them; DDP reads the names from the module."""
    module = build("MoCov2")
    train(tmp_path, module)
    buffers = dict(module.named_buffers())
    left_out = module._ddp_params_and_buffers_to_ignore
    assert {name.rpartition(".")[2] for name in left_out} >= {"rows", "pointer"}
    assert set(left_out) <= set(buffers)
    assert not any("running_mean" in name for name in left_out)


def test_a_head_of_another_width_than_the_encoders_last_layer():
    module = methods.SimCLR("mobilenetv3_small_050", projector_dims=(8, 4))
    images = torch.rand(4, 3, 32, 32)
    assert module({"image": images}, "validate")["embedding"].shape == (4, module.features)
    module({"views": [{"image": images}, {"image": images}]}, "fit")["loss"].backward()


@pytest.mark.filterwarnings("ignore:.*dataloader.*", "ignore:You're resuming from a checkpoint")
def test_queues_wait_for_the_step_when_a_run_goes_on_inside_an_epoch(tmp_path):
    """Lightning does not start the epoch again, and a step is made of two batches."""
    optim = {"optimizer": {"type": "SGD", "lr": 0.5}, "scheduler": None, "frequency": 2}

    class Save(pl.pytorch.callbacks.Checkpoint):  # of this kind, as it runs after the others
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.current_epoch == 0 and batch_idx == 3:
                trainer.save_checkpoint(tmp_path / "inside.ckpt")

    first, second = (build("MoCov2", optim=optim) for _ in range(2))
    batch = batch_of("MoCov2", 4)
    loader = DataLoader([batch] * 6, batch_size=None)
    fit = {"max_epochs": 2, "logger": False, "accelerator": "cpu", "enable_progress_bar": False}
    fit |= {"enable_model_summary": False, "default_root_dir": tmp_path}
    pl.Trainer(**fit, callbacks=[Save()]).fit(first, loader)
    pl.Trainer(**fit, enable_checkpointing=False).fit(
        second, loader, ckpt_path=tmp_path / "inside.ckpt"
    )
    for name, value in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], value, rtol=0, atol=0, msg=name)
