"""SimCLR: contrast two views of each image against all others.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020.
https://arxiv.org/abs/2002.05709; official code https://github.com/google-research/simclr.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spt_losses import NTXEntLoss
from torch import nn

from spt_methods.backbones.mlp import projection_head
from spt_methods.backbones.timm import from_timm
from spt_methods.module import Module
from spt_methods.views import Stage, State, images_of, labels_of, two_views_of, views_of


def simclr(self: Any, batch: Any, stage: Stage) -> State:
    """Contrast two views of each image against the rest of the batch.

    Needs: ``backbone``, ``projector``, ``simclr_loss``.
    Reads: two views, each with ``image`` ``(N, C, H, W)``, in ``fit``; any number elsewhere, a single
    ``image`` included.
    Writes: ``embedding`` ``(V * N, F)`` and ``label`` to match, if there are labels; in ``fit`` also
    ``projection`` ``(2N, D)`` and ``loss``.
    """
    views = two_views_of(batch, "SimCLR") if stage == "fit" else views_of(batch)
    state: State = {"embedding": self.backbone(images_of(views)), **labels_of(batch, views)}
    if stage == "fit":
        state["projection"] = self.projector(state["embedding"])
        state["loss"] = self.simclr_loss(*state["projection"].chunk(2))
    return state


class SimCLR(Module):
    """SimCLR on a timm encoder, with the projection head of the official code.

    Args:
        encoder_name: A timm model, or a module with ``num_features`` that returns ``(N, F)``.
        projector_dims: Widths of the projection head.
        temperature: tau of NT-Xent; the paper uses 0.1 on ImageNet and 0.5 on CIFAR-10.
        low_resolution: Replace a ResNet's stem by a 3x3 convolution, for small images.
        pretrained: Load timm's weights.
        in_chans: Channels of the images.
        optim: As for :class:`Module`. By default LARS with a warm-up and a cosine, at the paper's
            0.3 for a batch of 256; scale the rate with the batch.
        hparams: Further hyper-parameters to record.

    Note:
        The paper's v1 head has two layers (F, 128); three layers are those of its ImageNet code.
    """

    def __init__(
        self,
        encoder_name: str | nn.Module = "resnet50",
        projector_dims: Sequence[int] = (2048, 2048, 256),
        temperature: float = 0.5,
        low_resolution: bool = False,
        pretrained: bool = False,
        in_chans: int = 3,
        optim: Any = "default",
        hparams: Mapping[str, Any] | None = None,
    ) -> None:
        if isinstance(encoder_name, str):
            backbone: nn.Module = from_timm(
                encoder_name,
                low_resolution=low_resolution,
                pretrained=pretrained,
                in_chans=in_chans,
                num_classes=0,
            )
        else:
            backbone = encoder_name
        features = getattr(backbone, "num_features", None)
        if not isinstance(features, int):
            raise ValueError(
                f"The encoder {type(backbone).__name__} needs an integer attribute `num_features`, the "
                "width of what it returns."
            )
        recorded = {
            "method": "simclr",
            "encoder": encoder_name if isinstance(encoder_name, str) else type(backbone).__name__,
            "projector_dims": list(projector_dims),
            "temperature": temperature,
            **(hparams or {}),
        }
        if optim == "default":
            optim = {
                "optimizer": {"type": "LARS", "lr": 0.3, "weight_decay": 1e-6},
                "scheduler": {"type": "LinearWarmupCosineAnnealing", "peak_step": 0.01},
            }
        super().__init__(
            forward=simclr,
            hparams=recorded,
            backbone=backbone,
            projector=projection_head(features, projector_dims),
            simclr_loss=NTXEntLoss(temperature),
            optim=optim,
        )
