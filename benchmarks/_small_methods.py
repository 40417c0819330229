"""Every method of the catalogue that reads images, on a network small enough for a CPU."""

from __future__ import annotations

from typing import Any

import lightning as pl
import torch
from _fashion_mnist import FRAMES, PRETRAINED, SIDE, Stream
from spt_methods import Module, backbones, forward, methods
from spt_methods.masking import MultiBlockMasking
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn
from torch.utils.data import DataLoader

LR = 1e-3
Labelled = tuple[Tensor, Tensor]  # images and labels to pretrain on


def resnet() -> nn.Module:
    """A ResNet-10 of 16 to 128 channels; its stem halves the image twice, as the large ones do."""
    net = ResNet(
        BasicBlock, (1, 1, 1, 1), in_chans=1, num_classes=0, channels=(16, 32, 64, 128),
        output_stride=16,  # 2 x 2 places at the end, which VICRegL matches
        zero_init_last=False,  # residual branches that start at zero make an unfair untrained network
    )  # fmt: skip
    net.conv1 = nn.Conv2d(1, 64, 3, 2, 1, bias=False)
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


SIZES: dict[str, Any] = {
    "patch_size": 8,
    "in_chans": 1,
    "depth": 4,
    "embed_dim": 64,
    "num_heads": 2,
}
PATCHES_ALONE = {"class_token": False, "global_pool": "avg", "fc_norm": False}


def transformer(**settings: Any) -> nn.Module:
    """Four blocks of width 64 on patches of 8 pixels."""
    return backbones.from_timm(
        "vit_tiny_patch16_224", img_size=SIDE, num_classes=0, dynamic_img_size=True, **SIZES,
        **settings,
    )  # fmt: skip


def video_transformer() -> nn.Module:
    """The same over tubelets of two frames."""
    return backbones.VideoViT(
        "vit_tiny_patch16_224", num_frames=FRAMES, tubelet_size=2, image_size=SIDE, **SIZES
    )


HEAD = {"n_prototypes": 512, "projector_hidden_dim": 256, "projector_bottleneck_dim": 64,
        "warmup_epochs_temperature_teacher": 0, "freeze_last_layer_epochs": 0,
        "drop_path_rate": 0.0}  # fmt: skip
EMA = {"ema_decay_start": 0.98}
SLOW_EMA = {"ema_decay_start": 0.996}  # a teacher of features that follows fast forgets the image
DECODER = {"decoder_embed_dim": 64, "decoder_depth": 2, "decoder_num_heads": 4}
PREDICTOR = {"predictor_embed_dim": 64, "predictor_depth": 2}
MASKED_HEAD = {k: v for k, v in HEAD.items() if k != "n_prototypes"}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "CMAE": ("one crop, two colours", {"pixel_shift": 0, "feature_decoder_depth": 1,
                                       "projector_hidden_dim": 256, "projector_dim": 64, **DECODER,
                                       "ema_decay_start": 0.98, "ema_decay_end": 0.999}),
    "CrossMAE": ("one image", DECODER),
    "DeiT": ("one image", {"num_classes": 10}),
    "DINOv3": ("multi-crop", {**HEAD, "ema_decay_start": 0.98, "ema_decay_end": 0.999,
                              "gram_start_step": None}),
    "iGPT": ("one image", {"head_dim": 128, "head_depth": 2, "feature_layers": 2}),
    "MIMRefiner": ("multi-crop", {"num_heads": 2, "projector_dims": (256, 256, 64),
                                  "predictor_hidden_dim": 256, "queue_length": 2048}),
    "NEPA": ("one image", {}),
    "SALT": ("one image", PREDICTOR),  # its teacher: see `build`
    "VJEPA": ("one video", {**PREDICTOR, **SLOW_EMA}),
    "BEiT": ("one image", {"vocab_size": 512, "drop_path_rate": 0.0}),  # the tokenizer: see `build`
    "Data2Vec": ("one image", {"top_k_blocks": 3, "drop_path_rate": 0.0, "ema_decay_start": 0.98,
                               "ema_decay_end": 0.999}),
    "iBOT": ("multi-crop", {"n_cls_prototypes": 512, **MASKED_HEAD, **EMA}),
    "IJEPA": ("one image", {**PREDICTOR, "min_keep": 2, **SLOW_EMA}),
    "MAE": ("one image", DECODER),
    "MaskFeat": ("one image", {"hog_cell": 8}),
    "MSN": ("multi-crop", {"n_prototypes": 128, "projector_hidden_dim": 256, "projector_dim": 64, **EMA}),
    "SimMIM": ("one image", {"mask_size": 8}),
    "BarlowTwins": ("two views", {"projector_dims": (512, 512)}),
    "BYOL": ("two views", {"projector_dims": (512, 128), "predictor_dims": (512, 128), **EMA}),
    "DINO": ("multi-crop", {**HEAD, **EMA}),
    "DINOv2": ("multi-crop", {**HEAD, **EMA}),
    "LeJEPA": ("multi-crop", {"projector_dims": (512, 64), "n_slices": 256}),
    "MoCov2": ("two views", {"projector_dims": (256, 64), "queue_length": 2048,
                             "ema_decay_start": 0.98, "ema_decay_end": 0.98}),
    "MoCov3": ("two views", {"projector_dims": (512, 128), "predictor_hidden_dim": 512, **EMA}),
    "NNCLR": ("two views", {"projector_dims": (512, 128), "predictor_hidden_dim": 512,
                            "queue_length": 2048}),
    "PIRL": ("one image", {"num_samples": PRETRAINED, "num_negatives": 2048}),
    "SimCLR": ("two views", {"projector_dims": (512, 128), "temperature": 0.2}),
    "SimSiam": ("two views", {"projector_dim": 512, "predictor_hidden_dim": 128}),
    "SwAV": ("multi-crop", {"projector_dims": (512, 64), "n_prototypes": 100,
                            "freeze_prototypes_steps": 20}),
    "TiCO": ("two views", {"projector_dims": (512, 128), **EMA}),
    "VICReg": ("two views", {"projector_dims": (512, 512)}),
    "VICRegL": ("two views", {"projector_dims": (512, 512), "map_dims": (128, 128),
                              "num_matches": (2, 2)}),
    # hardly more than the official 0, which makes a singular covariance an error: with the default
    # a head that shrinks is no longer whitened, and dimensions are lost
    "WMSE": ("two views", {"projector_dims": (512, 64), "w_size": 128, "eps": 1e-6}),
}  # fmt: skip
RESNETS = {
    "BarlowTwins", "BYOL", "DINO", "LeJEPA", "MoCov2", "MoCov3", "NNCLR", "PIRL", "SimCLR", "SimSiam",
    "SwAV", "TiCO", "VICReg", "VICRegL", "WMSE",
}  # fmt: skip
POOLED = {
    "BEiT",
    "CMAE",
    "CrossMAE",
    "Data2Vec",
    "IJEPA",
    "iGPT",
    "MAE",
    "MaskFeat",
    "SALT",
    "SimMIM",
}
WITHOUT_CLASS_TOKEN = {"IJEPA", "iGPT", "SALT"}


def encoder_of(name: str) -> nn.Module:
    """The ResNet, or the transformer with what the method asks of it."""
    if name in RESNETS:
        return resnet()
    if name == "VJEPA":
        return video_transformer()
    if name in WITHOUT_CLASS_TOKEN:
        return transformer(**PATCHES_ALONE)
    return transformer(**({"global_pool": "avg", "fc_norm": False} if name in POOLED else {}))


def optim_of(steps: int) -> dict[str, Any]:
    """AdamW with a warm-up and a cosine."""
    return {
        "optimizer": {"type": "AdamW", "lr": LR, "weight_decay": 1e-4},
        "scheduler": {"type": "LinearWarmupCosineAnnealing", "peak_step": 0.1},
        "gradient_clip_val": 3.0,
    }


def tokenizer_of(vocab_size: int, steps: int, seed: int, images: Labelled) -> pl.LightningModule:
    """A VQ tokenizer trained on the same images for as many steps."""
    tokenizer = methods.VQTokenizer(
        vocab_size, patch_size=8, in_chans=1, hidden_dim=32, codebook_dim=16, optim=optim_of(steps)
    )
    return fit(tokenizer, "one image", steps, seed, images)


def build(name: str, steps: int, seed: int, images: Labelled) -> tuple[pl.LightningModule, str]:
    """A method on its encoder, and what it reads; with 0 steps nothing that it builds on is trained."""
    if name == "supervised":
        return (
            Module(
                forward=forward.supervised, backbone=resnet(), classifier=nn.Linear(128, 10),
                supervised_loss=nn.CrossEntropyLoss(), optim=optim_of(steps),
            ),
            "one image",
        )  # fmt: skip
    kind, settings = METHODS[name]
    encoder = encoder_of(name)
    if name == "BEiT":
        settings = {
            **settings,
            "tokenizer": tokenizer_of(settings["vocab_size"], steps, seed, images),
        }
    elif name == "SALT":  # the paper's first stage: pixels, under the masks of the second
        masks = methods.MAE(
            transformer(**PATCHES_ALONE),
            masking=MultiBlockMasking(),
            optim=optim_of(steps),
            **DECODER,
        )
        settings = {**settings, "teacher": fit(masks, "one image", steps, seed, images).backbone}
    elif name == "MIMRefiner":  # what it refines
        mae = methods.MAE(encoder, optim=optim_of(steps), **DECODER)
        encoder = fit(mae, "one image", steps, seed, images).backbone.vit
    return getattr(methods, name)(encoder, optim=optim_of(steps), **settings), kind


def fit(module: Any, kind: str, steps: int, seed: int, images: Labelled) -> Any:
    """The module, trained for so many steps in silence."""
    if not steps:
        return module
    loader = DataLoader(Stream(*images, kind, seed), batch_size=None)
    trainer = pl.Trainer(
        accelerator="auto", devices=1, max_steps=steps, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader)
    return module
