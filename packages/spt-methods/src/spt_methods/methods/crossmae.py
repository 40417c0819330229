"""CrossMAE: MAE whose decoder predicts some hidden patches, each by itself, from the visible ones.

Fu et al., "Rethinking Patch Dependence for Masked Autoencoders", 2024.
https://arxiv.org/abs/2401.14391; official code https://github.com/TonyLianLong/CrossMAE.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spt_losses import MAELoss
from torch import nn

from spt_methods.backbones.cross_decoder import CrossDecoder
from spt_methods.backbones.sines import masked_autoencoder_init, xavier_init
from spt_methods.masking.partial import PartialMasking
from spt_methods.methods._groups import UNDECAYED
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.views import Stage, State, images_of, labels_of, views_of


def crossmae(self: Any, batch: Any, stage: Stage) -> State:
    """Reconstruct some hidden patches from the encoder's blocks, which see the visible ones alone.

    Needs: ``backbone`` (a ``ViTTokens``), ``decoder`` (a ``CrossDecoder``), ``mae_loss``, ``masking`` (a
    ``PartialMasking``), ``feature_maps`` (indices of blocks; 0 stands for their input).
    Reads: any views, each with ``image`` ``(N, C, H, W)``.
    Writes: ``embedding`` ``(V * N, F)``, of the visible patches in ``fit``, and ``label`` to match, if there
    are labels; in ``fit`` also ``predictions`` ``(V * N, m, p * p * C)`` at the places of ``mask`` ``(V * N, P)``,
    and ``loss``.
    """
    views = views_of(batch)
    images = images_of(views)
    if stage != "fit":
        return {"embedding": self.backbone(images).embedding, **labels_of(batch, views)}
    rows, columns = self.backbone.grid_of(images)
    kept = self.masking(len(images), rows * columns, images.device)
    maps = self.backbone.block_outputs(images, ids_keep=kept.ids_keep, with_input=True)
    last = self.backbone.norm(maps[-1])
    state: State = {"embedding": self.backbone.pool(last), **labels_of(batch, views)}
    state["mask"] = images.new_zeros(len(images), rows * columns).scatter_(1, kept.places, 1.0)
    shown = [maps[index] for index in self.feature_maps] if self.feature_maps else [last]
    state["predictions"] = self.decoder(shown, kept.places)
    everywhere = images.new_ones(kept.places.shape)
    state["loss"] = self.mae_loss(state["predictions"], images, everywhere, places=kept.places)
    return state


class CrossMAE(Method):
    """CrossMAE on a timm vision transformer.

    Args:
        model_or_model_name: A timm ``VisionTransformer`` or ``Eva``, by name or as a module.
        decoder_embed_dim: Width of the decoder; the official code takes 256 for ViT-S, 512 above.
        decoder_depth: Its blocks.
        decoder_num_heads: Its heads; 8 for ViT-S, 16 above.
        mask_ratio: Share of hidden patches.
        kept_mask_ratio: Share of patches to predict, at most ``mask_ratio``.
        norm_pix_loss: Standardise each patch of the target.
        weight_feature_maps: Let each block of the decoder attend to its own mixture of the encoder's
            blocks; else to the encoder's normed output.
        use_feature_maps: The encoder's blocks that are mixed, counted from 0 or, negative, from the end;
            ``(-1,)`` alone stands for all.
        use_input: Mix also what enters the first block.
        self_attn: Let the decoder's queries attend to one another, as MAE's do.
        mlp_ratio: Hidden width of the decoder's MLPs over its width.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``in_chans``, ``optim`` and others.
            The recipe is MAE's, AdamW (0.9, 0.95) at 1.5e-4 for a batch of 256, decay 0.05.

    Raises:
        ValueError: Unless ``0 < kept_mask_ratio <= mask_ratio < 1`` and the blocks exist.

    Note:
        A named encoder gets fixed sine positions and a Xavier start, unless it is ``pretrained``.
        Where maps are mixed, the objective does not pass the encoder's last norm. The official
        encoder has none then; here it stays, so that weights remain timm's, but it is not trained,
        and ``embedding`` passes it.
    """

    paper = Recipe(
        "AdamW", 1.5e-4, 0.05, batch=4096, epochs=800, warmup_epochs=40, augmentation="mae",
        settings={"betas": (0.9, 0.95)}, options=UNDECAYED,
    )  # fmt: skip

    def __init__(
        self,
        model_or_model_name: str | nn.Module = "vit_base_patch16_224",
        decoder_embed_dim: int = 512,
        decoder_depth: int = 12,
        decoder_num_heads: int = 16,
        mask_ratio: float = 0.75,
        kept_mask_ratio: float = 0.75,
        norm_pix_loss: bool = True,
        weight_feature_maps: bool = True,
        use_feature_maps: Sequence[int] = (-1,),
        use_input: bool = True,
        self_attn: bool = False,
        mlp_ratio: float = 4.0,
        **common: Any,
    ) -> None:
        super().__init__(
            crossmae,
            model_or_model_name,
            tokens=True,
            **common,
        )
        encoder: Any = self.backbone
        if isinstance(model_or_model_name, str):
            masked_autoencoder_init(encoder, pretrained=common.get("pretrained", False))
        self.feature_maps: list[int] = []
        if weight_feature_maps:
            self.feature_maps = _maps(use_feature_maps, use_input, len(encoder.vit.blocks))
            for norm in (encoder.vit.norm, encoder.vit.fc_norm):
                norm.requires_grad_(False)  # the loss does not pass them
        side = encoder.square_patch
        self.masking = PartialMasking(mask_ratio, kept_mask_ratio)
        self.decoder = CrossDecoder(
            encoder.embed_dim,
            decoder_embed_dim,
            side**2 * encoder.in_chans,
            encoder.default_grid,
            len(self.feature_maps) or None,
            decoder_depth,
            decoder_num_heads,
            mlp_ratio,
            self_attn,
        )
        xavier_init(self.decoder)
        self.mae_loss = MAELoss(side, patch_normalize=norm_pix_loss)


def _maps(blocks: Sequence[int], use_input: bool, depth: int) -> list[int]:
    """Places in the list of the input and the blocks' outputs."""
    if any(not -depth <= index < depth for index in blocks):
        raise ValueError(
            f"`use_feature_maps` must name some of the encoder's {depth} blocks, got {list(blocks)}."
        )
    chosen = range(depth) if [*blocks] == [-1] else sorted({index % depth for index in blocks})
    return [*([0] if use_input else []), *(1 + index for index in chosen)]
