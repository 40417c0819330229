"""An image decoded from frozen features: what an embedding still knows of its picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanSquaredError

from spt_callbacks.evaluation._decoders import CNNDecoder, ImageShape, ViTDecoder
from spt_callbacks.evaluation.probe import OnlineProbe
from spt_callbacks.keys import Key

OPTIMIZER = {"type": "Adam", "lr": 1e-3, "weight_decay": 0.0}


class OnlineImageDecoder(OnlineProbe):
    """A probe whose head decodes the image from detached features.

    Logs ``train/{name}_loss`` and ``eval/{name}_MeanSquaredError``; the images are put into the
    step's dict as ``{name}_preds``. Everything else is as in :class:`OnlineProbe`.

    Args:
        module: Accepted so that ``OnlineImageDecoder(module, name=...)`` works; not used.
        name: Name in the logs and in checkpoints.
        input: Key of the features: vectors ``(N, D)``, or patch tokens ``(N, P, D)``.
        target: Key of the images ``(N, C, H, W)``, floating point.
        image_shape: ``(C, H, W)``, square.
        embed_dim: Width D of the features.
        kind: ``"cnn"`` for vectors, ``"vit"`` for tokens, ``"auto"``: vit if ``patch_size`` is given.
        patch_size: Side of a token's patch, for ``"vit"``.
        decoder_kwargs: Further settings of the decoder: ``start_size``, ``width``, ``least_width`` of a
            cnn; ``decoder_dim``, ``depth``, ``num_heads`` of a vit.
        loss: From decoded and true images to a scalar; mean squared error by default.
        metrics: As for :class:`OnlineProbe`; ``MeanSquaredError`` by default.
        optimizer: As for ``spt_optim.create_optimizer``; Adam by default.
        scheduler: As for :class:`OnlineProbe`.
        accumulate_grad_batches: Batches per step of the decoder.
        gradient_clip_val: Largest norm, or value, of the decoder's gradient.
        gradient_clip_algorithm: ``"norm"`` or ``"value"``.
        verbose: Also log the decoder's learning rate, ``hparams/lr_{name}``.

    Raises:
        ValueError: If the shape, kind or patch size cannot be; at a step, if features or images
            have another shape.
    """

    def __init__(
        self,
        module: pl.LightningModule | None = None,
        name: str = "decoder",
        input: Key = "embedding",
        target: Key = "image",
        *,
        image_shape: ImageShape,
        embed_dim: int,
        kind: Literal["auto", "cnn", "vit"] = "auto",
        patch_size: int | None = None,
        decoder_kwargs: Mapping[str, Any] | None = None,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        metrics: Any = None,
        optimizer: Any = None,
        scheduler: Any = None,
        accumulate_grad_batches: int = 1,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: Literal["norm", "value"] = "norm",
        verbose: bool | None = None,
    ) -> None:
        side = _patch_side(kind, patch_size, image_shape)
        self.kind = "cnn" if side is None else "vit"
        settings = dict(decoder_kwargs or {})

        def decoder(_: pl.LightningModule | None = None) -> nn.Module:
            if side is None:
                return CNNDecoder(embed_dim, image_shape, **settings)
            return ViTDecoder(embed_dim, image_shape, side, **settings)

        with torch.device("meta"):  # a wrong setting is named now, and no random number is drawn
            decoder()
        super().__init__(
            module,
            name,
            input,
            target,
            decoder,
            self._squared_error if loss is None else loss,
            OPTIMIZER if optimizer is None else optimizer,
            scheduler,
            accumulate_grad_batches,
            gradient_clip_val,
            gradient_clip_algorithm,
            MeanSquaredError() if metrics is None else metrics,
            verbose,
        )

    def _squared_error(self, decoded: Tensor, images: Tensor) -> Tensor:
        if decoded.shape != images.shape:
            raise ValueError(
                f"{self.caller} decodes {self.input!r} to {tuple(decoded.shape)}, but {self.target!r} "
                f"has shape {tuple(images.shape)}; change `image_shape`."
            )
        return F.mse_loss(decoded, images.to(decoded.dtype))


def _patch_side(kind: str, patch_size: int | None, image_shape: ImageShape) -> int | None:
    """The side of a patch for a vit, ``None`` for a cnn.

    Raises:
        ValueError: If the settings do not go together.
    """
    if len(image_shape) != 3 or image_shape[1] != image_shape[2]:
        raise ValueError(f"`image_shape` must be (C, H, W) with H = W, got {tuple(image_shape)}.")
    if kind not in ("auto", "cnn", "vit"):
        raise ValueError(f'`kind` must be "auto", "cnn" or "vit", got {kind!r}.')
    if kind == "vit" and patch_size is None:
        raise ValueError('`kind="vit"` needs `patch_size`, the side of a token\'s patch.')
    return None if kind == "cnn" else patch_size
