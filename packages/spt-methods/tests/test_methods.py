"""Forward functions, method classes and backbones."""

import lightning as pl
import pytest
import torch
from spt_losses import NTXEntLoss
from spt_methods import Module, backbones, forward, methods, views_of
from spt_methods.views import labels_of
from torch import nn

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(4)


def pair(labels=True):
    first, second = {"image": IMAGES}, {"image": IMAGES.flip(-1)}
    if labels:
        first, second = ({**view, "label": LABELS} for view in (first, second))
    return first, second


@pytest.mark.parametrize(
    "batch",
    [
        list(pair()),
        {"views": list(pair())},
        {"a": pair()[0], "b": pair()[1]},
        {"views": list(pair()), "epoch": 3},
        {"views": {"a": pair()[0], "b": pair()[1]}},
        {"a": pair()[0], "b": pair()[1], "batch_idx": 0},
    ],
)
def test_views_in_every_form(batch):
    views = views_of(batch)
    assert len(views) == 2
    assert torch.equal(views[1]["image"], IMAGES.flip(-1))


def test_a_batch_without_views_is_named():
    with pytest.raises(ValueError, match=r"The batch has no views.*got \['pixels'\]"):
        views_of({"pixels": IMAGES})
    with pytest.raises(ValueError, match="got Tensor"):
        views_of(IMAGES)


def simclr_module():
    torch.manual_seed(0)
    return Module(
        forward=forward.simclr,
        backbone=nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 6)),
        projector=nn.Linear(6, 5),
        simclr_loss=NTXEntLoss(0.5),
    )


def test_simclr_contrasts_the_two_views():
    module, (first, second) = simclr_module(), pair()
    state = module({"views": [first, second]}, "fit")
    assert set(state) == {"embedding", "label", "projection", "loss"}
    assert torch.equal(state["label"], torch.cat([LABELS, LABELS]))
    z = [module.projector(module.backbone(view["image"])) for view in (first, second)]
    torch.testing.assert_close(state["loss"], NTXEntLoss(0.5)(*z))


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_simclr_embeds_a_single_image_outside_training(stage):
    state = simclr_module()({"image": IMAGES, "label": LABELS}, stage)
    assert set(state) == {"embedding", "label"}
    assert state["embedding"].shape == (4, 6)


def test_labels_at_the_top_level_are_repeated():
    first, second = pair(labels=False)
    state = simclr_module()({"views": [first, second], "label": LABELS}, "fit")
    assert torch.equal(state["label"], torch.cat([LABELS, LABELS]))
    assert "label" not in simclr_module()([first, second], "fit")


def test_labels_of_some_views_are_refused():
    views = [
        {"image": torch.zeros(2, 3, 8, 8), "label": torch.zeros(2)},
        {"image": torch.zeros(2, 3, 8, 8)},
    ]
    with pytest.raises(
        ValueError, match="Either all views have a 'label' or none, got it in 1 of 2"
    ):
        labels_of({"views": views}, views)


def test_simclr_refuses_another_number_of_views():
    with pytest.raises(ValueError, match="SimCLR trains on 2 views, got 1"):
        simclr_module()({"image": IMAGES}, "fit")


def test_supervised():
    module = Module(
        forward=forward.supervised,
        backbone=nn.Flatten(),
        classifier=nn.Linear(3 * 32 * 32, 4),
        supervised_loss=nn.CrossEntropyLoss(),
    )
    for stage in ("fit", "validate"):
        state = module({"image": IMAGES, "label": LABELS}, stage)
        expected = nn.functional.cross_entropy(state["logits"], LABELS)
        torch.testing.assert_close(state["loss"], expected)
    assert "loss" not in module({"image": IMAGES}, "predict")
    with pytest.raises(ValueError, match=r"needs 'label' in the batch; it holds \['image'\]"):
        module({"image": IMAGES}, "fit")


@pytest.mark.filterwarnings("ignore:.*dataloader.*")
@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224"])
def test_the_class_trains_in_a_bare_trainer(tmp_path, name):
    encoder = backbones.from_timm(
        name, num_classes=0, **({"img_size": 32} if name.startswith("vit") else {})
    )
    module = methods.SimCLR(encoder, projector_dims=(16, 8), temperature=0.2)
    assert module.forward.__func__ is forward.simclr
    loader = torch.utils.data.DataLoader(
        [
            {"views": [{"image": a}, {"image": b}]}
            for a, b in zip(IMAGES, IMAGES.flip(-1), strict=True)
        ],
        batch_size=4,
    )
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, loader)
    assert trainer.global_step == 1
    state = module.train()({"views": list(pair())}, "fit")
    state["loss"].backward()
    assert [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None] == []
    assert module.hparams["method"] == "simclr"


def test_the_class_names_an_encoder_without_a_width():
    with pytest.raises(ValueError, match="Flatten needs an integer attribute `num_features`"):
        methods.SimCLR(nn.Flatten())


@pytest.mark.parametrize("call", [(512, 256, 128), (512, [256, 128])])
def test_mlp_in_both_forms(call):
    mlp = backbones.MLP(*call)
    assert [type(layer).__name__ for layer in mlp] == ["Linear", "ReLU", "Linear"]
    assert mlp(torch.zeros(2, 512)).shape == (2, 128)


def test_mlp_options_and_errors():
    mlp = backbones.MLP(8, [4, 2], norm_layer="batch_norm", activation_layer=nn.GELU, dropout=0.1)
    names = [type(layer).__name__ for layer in mlp]
    assert names == ["Linear", "BatchNorm1d", "GELU", "Dropout", "Linear"]
    with pytest.raises(ValueError, match=r"one of \['batch_norm', 'layer_norm'\].*got 'bn'"):
        backbones.MLP(8, 4, 2, norm_layer="bn")
    with pytest.raises(ValueError, match="needs the widths of its layers"):
        backbones.MLP(8)
    lazy = backbones.MLP(None, 4, 2)
    assert lazy(torch.zeros(3, 11)).shape == (3, 2)
    assert lazy[0].in_features == 11


@pytest.mark.parametrize("make", [backbones.from_timm, backbones.from_torchvision])
def test_the_low_resolution_stem_keeps_the_resolution(make):
    model = make("resnet18", low_resolution=True, num_classes=3)
    assert model.conv1.stride == (1, 1)
    assert isinstance(model.maxpool, nn.Identity)
    assert model(IMAGES).shape == (4, 3)


def test_a_pretrained_stem_that_is_lost_is_told():
    from loguru import logger
    from spt_methods.backbones.stem import use_low_resolution_stem

    said = []
    handler = logger.add(said.append, format="{message}")
    try:
        for trained in (False, True):
            model = backbones.from_timm("resnet10t", num_classes=0)
            model.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
            use_low_resolution_stem(model, "mine", trained=trained)
    finally:
        logger.remove(handler)
    (message,) = said  # of the trained one alone
    assert "'mine' loses the pretrained weights of its stem to `low_resolution`" in message


@pytest.mark.parametrize("name", ["SimCLR", "MAE"])
def test_methods_take_grey_and_oblong_images(name):
    """One channel, 32 rows and 64 columns."""
    settings = {"SimCLR": {"projector_dims": (8, 4)},
                "MAE": {"decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2}}  # fmt: skip
    sizes = {"patch_size": 8, "depth": 1, "embed_dim": 16, "num_heads": 2, "img_size": (32, 64)}
    module = getattr(methods, name)(
        "vit_tiny_patch16_224", in_chans=1, encoder_kwargs=sizes, **settings[name]
    )
    views = [{"image": torch.rand(4, 1, 32, 64)} for _ in range(2 if name == "SimCLR" else 1)]
    state = module.train()({"views": views}, "fit")
    state["loss"].backward()
    assert state["embedding"].shape == (4 * len(views), 16)
    if name == "MAE":
        assert state["predictions"].shape == (4, 4 * 8, 8 * 8)


@pytest.mark.parametrize("name", ["resnet18", "convnext_tiny", "mobilenet_v3_small", "vgg11"])
def test_torchvision_heads_are_removed(name):
    model = backbones.from_torchvision(name).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, model.num_features)


def test_torchvision_transformers_lose_their_heads_too():
    for name in ("vit_b_32", "swin_t"):
        model = (
            backbones.from_torchvision(name, image_size=32)
            if "vit" in name
            else (backbones.from_torchvision(name))
        )
        assert all(
            layer.out_features != 1000 for layer in model.modules() if isinstance(layer, nn.Linear)
        )


def test_other_channels():
    grey = torch.zeros(2, 1, 32, 32)
    assert backbones.from_torchvision("resnet18", in_channels=1)(grey).shape == (2, 512)
    model = backbones.from_timm("resnet10t", in_chans=1, num_classes=0)
    assert model(grey).shape == (2, 512)


def test_wrong_models_are_named():
    with pytest.raises(ValueError, match="timm has no model 'resnt18'. Did you mean 'resnet18'"):
        backbones.from_timm("resnt18")
    with pytest.raises(ValueError, match="torchvision has no model 'resnet19'. Did you mean"):
        backbones.from_torchvision("resnet19")
    with pytest.raises(ValueError, match="`low_resolution` needs a ResNet.*'convnext_tiny' has"):
        backbones.from_torchvision("convnext_tiny", low_resolution=True)
