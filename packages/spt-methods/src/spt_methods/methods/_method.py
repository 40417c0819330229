"""What the method classes share: an encoder, a recipe, and the callbacks that a method brings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from spt_methods.backbones.encoder import build_encoder, encoder_label, width_of
from spt_methods.methods._recipe import Recipe
from spt_methods.methods._recorded import recording, taken
from spt_methods.module import Forward, Module


class Method(Module):
    """A method on an encoder: its forward function, and around it the parts that a subclass adds.

    The callbacks of :meth:`method_callbacks` join the Trainer's; if the user has one of the same
    class there, that one is used instead. The arguments of a subclass's constructor are recorded as
    hyper-parameters: its first is the encoder, and ``**common`` go to this class.

    Args:
        forward: The method's forward function; its name is recorded as ``method``.
        encoder_name: A timm model, or a module with ``num_features`` that returns ``(N, F)``.
        batch_size: Samples per optimizer step (over all ranks and accumulated batches), by which the
            recipe scales its rate; its rate for ``paper.base_batch`` is taken if it is left out.
        low_resolution: Replace a ResNet's stem, for images of about 32 pixels.
        pretrained: Load timm's weights.
        in_chans: Channels of the images.
        image_size: Side of the images, for models whose positions depend on it.
        drop_path_rate: Stochastic depth.
        crops: Whether the encoder sees crops of several sizes.
        tokens: Make the encoder a :class:`spt_methods.backbones.ViTTokens`; with a mask token if
            ``"mask"``.
        encoder_kwargs: Further arguments of ``timm.create_model``.
        optim: As for :class:`Module`, instead of the recipe.
        hparams: Further hyper-parameters to record.

    Attributes:
        paper: The authors' optimisation.
        backbone: The encoder.
        features: Width of the embedding.
    """

    paper: ClassVar[Recipe]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = recording(cls.__init__, Method)  # type: ignore[method-assign]

    def __init__(
        self,
        forward: Forward,
        encoder_name: str | nn.Module,
        *,
        batch_size: int | None = None,
        low_resolution: bool = False,
        pretrained: bool = False,
        in_chans: int = 3,
        image_size: int | None = None,
        drop_path_rate: float = 0.0,
        crops: bool = False,
        tokens: bool | str = False,
        encoder_kwargs: Mapping[str, Any] | None = None,
        optim: Any = "paper",
        hparams: Mapping[str, Any] | None = None,
    ) -> None:
        recorded = {"method": forward.__name__, "encoder": encoder_label(encoder_name)}
        by_paper = isinstance(optim, str) and optim == "paper"
        super().__init__(
            forward=forward,
            hparams={**recorded, **taken(self), **(hparams or {})},
            optim=self.paper.optim(batch_size) if by_paper else optim,
        )
        self.backbone = build_encoder(
            encoder_name,
            low_resolution=low_resolution,
            pretrained=pretrained,
            in_chans=in_chans,
            image_size=image_size,
            drop_path_rate=drop_path_rate,
            crops=crops,
            tokens=tokens,
            **(encoder_kwargs or {}),
        )
        self.features = width_of(self.backbone)
