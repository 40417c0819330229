"""MAE: encode a quarter of the patches, reconstruct the others' pixels.

He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022,
section 3.
https://arxiv.org/abs/2111.06377; official code https://github.com/facebookresearch/mae.
"""

from __future__ import annotations

from typing import Any, Literal

from spt_losses import MAELoss
from torch import nn

from spt_methods.backbones.mae_decoder import MAEDecoder
from spt_methods.backbones.sines import masked_autoencoder_init, xavier_init
from spt_methods.masking.patches import PatchMasking
from spt_methods.methods._groups import UNDECAYED
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.views import Stage, State, images_of, labels_of, views_of


def mae(self: Any, batch: Any, stage: Stage) -> State:
    """Reconstruct hidden patches from the visible ones; the encoder sees these alone.

    Needs: ``backbone`` (a ``ViTTokens``), ``decoder``, ``mae_loss``, ``masking``.
    Reads: any views, each with ``image`` ``(N, C, H, W)``.
    Writes: ``embedding`` ``(V * N, F)``, of the visible patches in ``fit``, and ``label`` to match, if there
    are labels; in ``fit`` also ``predictions`` ``(V * N, P, p * p * C)``, ``mask`` ``(V * N, P)`` and ``loss``.
    """
    views = views_of(batch)
    images = images_of(views)
    if stage != "fit":
        return {"embedding": self.backbone(images).embedding, **labels_of(batch, views)}
    grid = self.backbone.grid_of(images)
    kept = self.masking(images.new_empty(len(images), grid[0] * grid[1], 0), *grid)
    tokens = self.backbone.tokens(images, ids_keep=kept.ids_keep)
    state: State = {"embedding": self.backbone.pool(tokens), **labels_of(batch, views)}
    state["mask"] = kept.mask
    state["predictions"] = self.decoder(tokens, kept.mask, kept.ids_keep)
    state["loss"] = self.mae_loss(state["predictions"], images, kept.mask)
    return state


class MAE(Method):
    """MAE on a timm vision transformer.

    Args:
        model_or_model_name: A timm ``VisionTransformer`` or ``Eva``, by name or as a module.
        decoder_embed_dim: Width of the decoder.
        decoder_depth: Its blocks.
        decoder_num_heads: Its heads.
        mask_ratio: Share of hidden patches.
        block_size: Side of the squares that are hidden together, in patches.
        norm_pix_loss: Standardise each patch of the target.
        loss_type: Error of a patch; see :class:`spt_losses.MAELoss`.
        masking: Instead of ``mask_ratio`` and ``block_size``.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``in_chans``, ``optim`` and others.
            The recipe is AdamW (0.9, 0.95) at 1.5e-4 for a batch of 256, decay 0.05.

    Note:
        A named encoder gets fixed sine positions and a Xavier start, as in the official code, unless
        it is ``pretrained``; a given module stays as it is.
    """

    paper = Recipe(
        "AdamW", 1.5e-4, 0.05, batch=4096, epochs=800, warmup_epochs=40, augmentation="mae",
        settings={"betas": (0.9, 0.95)}, options=UNDECAYED,
    )  # fmt: skip

    def __init__(
        self,
        model_or_model_name: str | nn.Module = "vit_base_patch16_224",
        decoder_embed_dim: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
        mask_ratio: float = 0.75,
        block_size: int = 1,
        norm_pix_loss: bool = True,
        loss_type: Literal["mse", "cosine", "smooth_l1"] = "mse",
        masking: nn.Module | None = None,
        **common: Any,
    ) -> None:
        super().__init__(
            mae,
            model_or_model_name,
            tokens=True,
            **common,
        )
        encoder: Any = self.backbone
        if isinstance(model_or_model_name, str):
            masked_autoencoder_init(encoder, pretrained=common.get("pretrained", False))
        rows, columns = encoder.default_grid
        side = encoder.square_patch
        self.masking = masking or PatchMasking(mask_ratio, block_size)
        self.decoder = MAEDecoder(
            encoder.embed_dim,
            decoder_embed_dim,
            side**2 * encoder.in_chans,
            rows * columns,
            decoder_depth,
            decoder_num_heads,
            grid_size=encoder.default_grid,
            num_prefix_tokens=encoder.num_prefix_tokens,
        )
        xavier_init(self.decoder)
        self.mae_loss = MAELoss(side, loss_type, patch_normalize=norm_pix_loss)
