"""What the method classes share: an encoder, a recipe, and the callbacks that a method brings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning as pl
from torch import nn

from spt_methods.backbones.encoder import build_encoder, encoder_label, width_of
from spt_methods.module import Forward, Module


class Method(Module):
    """A method on an encoder: its forward function, and around it the parts that a subclass adds.

    The callbacks of :meth:`method_callbacks` join the Trainer's; if the user has one of the same
    class there, that one is used instead.

    Args:
        forward: The method's forward function; its name is recorded as ``method``.
        encoder_name: A timm model, or a module with ``num_features`` that returns ``(N, F)``.
        recipe: The paper's ``optim``.
        settings: What else to record among the hyper-parameters.
        low_resolution: Replace a ResNet's stem, for images of about 32 pixels.
        pretrained: Load timm's weights.
        in_chans: Channels of the images.
        image_size: Side of the images, for models whose positions depend on it.
        optim: As for :class:`Module`, instead of the recipe.
        hparams: Further hyper-parameters to record.

    Attributes:
        backbone: The encoder.
    """

    def __init__(
        self,
        forward: Forward,
        encoder_name: str | nn.Module,
        *,
        recipe: Mapping[str, Any],
        settings: Mapping[str, Any] | None = None,
        low_resolution: bool = False,
        pretrained: bool = False,
        in_chans: int = 3,
        image_size: int | None = None,
        optim: Any = "default",
        hparams: Mapping[str, Any] | None = None,
    ) -> None:
        recorded = {"method": forward.__name__, "encoder": encoder_label(encoder_name)}
        super().__init__(
            forward=forward,
            hparams={**recorded, **(settings or {}), **(hparams or {})},
            optim=recipe if isinstance(optim, str) and optim == "default" else optim,
        )
        self.backbone = build_encoder(
            encoder_name,
            low_resolution=low_resolution,
            pretrained=pretrained,
            in_chans=in_chans,
            image_size=image_size,
        )
        self.features = width_of(self.backbone)

    def method_callbacks(self) -> list[pl.Callback]:
        """The callbacks that belong to the method."""
        return []

    def configure_callbacks(self) -> Sequence[pl.Callback]:
        """The method's callbacks, but for those that the user gave."""
        given = {type(callback) for callback in self.trainer.callbacks}  # type: ignore[attr-defined]
        return [callback for callback in self.method_callbacks() if type(callback) not in given]


def recipe(
    optimizer: str, lr: float, weight_decay: float, *, warmup: float = 0.0, **settings: Any
) -> dict[str, Any]:
    """A paper's optimizer with a cosine, after a linear warm-up if it has one.

    Args:
        optimizer: Its name.
        lr: The rate at the paper's reference batch size (256); scale it with your batch.
        weight_decay: Decay.
        warmup: Share of the run that the warm-up takes.
        **settings: Further arguments of the optimizer.
    """
    warm = {"type": "LinearWarmupCosineAnnealing", "peak_step": warmup}
    return {
        "optimizer": {"type": optimizer, "lr": lr, "weight_decay": weight_decay, **settings},
        "scheduler": warm if warmup else {"type": "CosineAnnealingLR"},
    }
