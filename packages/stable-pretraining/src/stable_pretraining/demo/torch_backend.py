"""The demo's run with torch and Lightning: data, Module, callbacks, Manager."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import stable_pretraining as spt
from stable_pretraining.data import gpu_transforms as gt
from stable_pretraining.data import transforms
from stable_pretraining.demo.features import Outcome, Split

if TYPE_CHECKING:
    from spt_data import DataModule

BATCH_SIZE = 256
WIDTH = 256


def pretrain(train: Split, test: Split, *, cache_dir: Path, epochs: int, seed: int) -> Outcome:
    """Train for ``epochs`` under the Manager and embed both splits before and after."""
    pl.seed_everything(seed, workers=True, verbose=False)
    backbone = build_backbone()
    module = build_module(backbone)
    untrained = calibrated(copy.deepcopy(backbone), train.images)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="auto",
        devices=1,
        log_every_n_steps=5,
        callbacks=probes(module),
        enable_model_summary=False,
    )
    with spt.config_context(cache_dir=str(cache_dir)):
        manager = spt.Manager(trainer=trainer, module=module, data=build_data(seed), seed=seed)
        manager()
    assert manager.run_dir is not None  # the cache directory is set
    return Outcome(
        run_dir=manager.run_dir,
        trained=(embed(backbone, train.images), embed(backbone, test.images)),
        untrained=(embed(untrained, train.images), embed(untrained, test.images)),
    )


def build_data(seed: int) -> DataModule:
    """Loaders over the bundled images; the two views are made on the batch."""
    views = gt.StackedMultiView(
        gt.GPUCompose(
            [
                gt.GPURandomResizedCrop(28, scale=(0.4, 1.0)),
                gt.GPURandomHorizontalFlip(),
                gt.GPUColorJitter(0.6, 0.6, p=0.8),
            ]
        ),
        n_views=2,
    )
    train = spt.data.sample_dataset("train", transform=transforms.ToImage(), gpu_transform=views)
    test = spt.data.sample_dataset("test", transform=transforms.ToImage())
    order = torch.Generator().manual_seed(seed)
    return spt.data.DataModule(
        train=DataLoader(
            train, BATCH_SIZE, shuffle=True, drop_last=True, generator=order, num_workers=0
        ),
        val=DataLoader(test, BATCH_SIZE, num_workers=0),
    )


def build_backbone() -> nn.Module:
    """A ResNet of four basic blocks."""
    return spt.backbone.from_timm(
        "resnet18",
        num_classes=0,
        in_chans=1,
        layers=(1, 1, 1, 1),
        channels=(32, 64, 128, WIDTH),
        zero_init_last=False,  # branches that start at zero make the untrained network look bad
    )


def build_module(backbone: nn.Module) -> spt.Module:
    """SimCLR on the backbone."""
    return spt.Module(
        forward=spt.forward.simclr,
        backbone=backbone,
        projector=spt.backbone.MLP(WIDTH, 256, 64, norm_layer="batch_norm"),
        simclr_loss=spt.losses.NTXEntLoss(temperature=0.1),
        optim={
            "optimizer": {"type": "AdamW", "lr": 2e-3, "weight_decay": 1e-4},
            "scheduler": {"type": "LinearWarmupCosineAnnealing", "peak_step": 0.1},
            "interval": "step",
        },
        hparams={"method": "simclr", "backbone": "resnet, 4 blocks", "batch_size": BATCH_SIZE},
    )


def probes(module: spt.Module) -> list[pl.Callback]:
    """The live evaluation: a linear probe, kNN and the effective rank."""
    return [
        spt.OnlineProbe(
            module,
            name="probe",
            probe=nn.Linear(WIDTH, 10),
            loss=nn.CrossEntropyLoss(),
            optimizer={"type": "AdamW", "lr": 3e-3},
        ),
        spt.OnlineKNN(name="knn", queue_length=6000, input_dim=WIDTH, k=20),
        spt.RankMe(name="rankme", target="embedding", queue_length=2048, target_shape=WIDTH),
    ]


@torch.no_grad()
def calibrated(backbone: nn.Module, images: Tensor) -> nn.Module:
    """Give BatchNorm the statistics of the images, so that the baseline is a fair one."""
    backbone.train()
    for part in images.split(BATCH_SIZE):
        backbone(part)
    return backbone


@torch.no_grad()
def embed(backbone: nn.Module, images: Tensor) -> Tensor:
    """Features of clean images, ``(N, D)``, with the network in eval mode."""
    device = next(backbone.parameters()).device
    was_training = backbone.training
    backbone.eval()
    features = torch.cat([backbone(part.to(device)).cpu() for part in images.split(500)])
    backbone.train(was_training)
    return features
