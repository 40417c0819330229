"""NEPA: predict the embedding of the next patch, as it went in, from the patches before it.

Xu et al., "Next-Embedding Prediction Makes Strong Vision Learners", 2025, algorithm 1.
https://arxiv.org/abs/2512.16922; official code https://github.com/SihanXU/nepa.
"""

from __future__ import annotations

from typing import Any, cast

from spt_losses import NEPALoss
from timm.models.eva import Eva
from torch import nn

from spt_methods.backbones.causal import CausalViT
from spt_methods.backbones.rope import DINOv3Rope
from spt_methods.methods._groups import UNDECAYED
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.views import Stage, State, images_of, labels_of, views_of

SIZES = {  # width, blocks, heads
    "nepa_base_patch14": (768, 12, 12),
    "nepa_large_patch14": (1024, 24, 16),
}


def nepa(self: Any, batch: Any, stage: Stage) -> State:
    """Predict each token's successor, class token first and then the patches in raster order.

    Needs: ``backbone`` (a ``CausalViT``), ``nepa_loss``.
    Reads: any views, each with ``image`` ``(N, C, H, W)``.
    Writes: ``embedding`` ``(V * N, F)``, the mean of the patches' outputs under causal attention, in every
    stage, and ``label`` to match, if there are labels; in ``fit`` also ``predictions`` and ``inputs``
    ``(V * N, T, D)`` and ``loss``.
    """
    views = views_of(batch)
    images = images_of(views)
    sequence = self.backbone.sequence(images)
    state: State = {"embedding": sequence.embedding, **labels_of(batch, views)}
    if stage == "fit":
        state["predictions"], state["inputs"] = sequence.outputs, sequence.inputs.detach()
        state["loss"] = self.nepa_loss(state["predictions"], state["inputs"])
    return state


class NEPA(Method):
    """NEPA on a transformer with rotary positions.

    Args:
        encoder_name: ``"nepa_base_patch14"``, ``"nepa_large_patch14"``, a timm ``VisionTransformer`` or
            ``Eva`` by name, or one as a module.
        qk_norm: Normalise queries and keys, without parameters; of the two own names only.
        swiglu: Gated MLPs; of the two own names only.
        layer_scale_init: First value of LayerScale; of the two own names only.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``in_chans``, ``drop_path_rate``, ``optim`` and others.
            The recipe is AdamW (0.9, 0.95) at 3e-4 for a batch of 256, decay 0.05.

    Note:
        The two own names are timm's ``Eva`` with the official settings: rotations of coordinates in
        [-1, 1] with base 100, stretched by up to 2 in training. A gated MLP is two thirds as wide, so
        that it has as many parameters. Learned positions of other encoders are part of what is
        predicted. Frozen features are read under causal attention, as they were trained; the official
        fine-tuning may lift it.
    """

    paper = Recipe(
        "AdamW", 3e-4, 0.05, batch=4096, epochs=1600, warmup_epochs=40, augmentation="mae",
        settings={"betas": (0.9, 0.95)}, options=UNDECAYED,
    )  # fmt: skip

    def __init__(
        self,
        encoder_name: str | nn.Module = "nepa_base_patch14",
        qk_norm: bool = True,
        swiglu: bool = True,
        layer_scale_init: float = 1e-5,
        **common: Any,
    ) -> None:
        encoder = encoder_name
        if isinstance(encoder_name, str) and encoder_name in SIZES:
            encoder = _own_encoder(
                encoder_name,
                common,
                qk_norm=qk_norm,
                swiglu=swiglu,
                layer_scale_init=layer_scale_init,
            )
        super().__init__(nepa, encoder, tokens=True, **common)
        given: Any = self.backbone
        self.backbone = CausalViT(given.vit)
        self.backbone.rope = given.rope
        if encoder is not encoder_name:
            self.backbone.rope = DINOv3Rope(given.vit.blocks[0].attn.head_dim, rescale=2.0)
        self.nepa_loss = NEPALoss()


def _own_encoder(
    name: str, common: dict[str, Any], qk_norm: bool, swiglu: bool, layer_scale_init: float
) -> Eva:
    """The official transformer, without its rotations; takes what is about it out of ``common``."""
    width, depth, heads = SIZES[name]
    size = common.pop("image_size", None) or 224
    given = {
        "in_chans": common.pop("in_chans", 3),
        "drop_path_rate": common.pop("drop_path_rate", 0.0),
        **(common.pop("encoder_kwargs", None) or {}),
    }
    sizes = {"patch_size": 14, "embed_dim": width, "depth": depth, "num_heads": heads, **given}
    vit = Eva(
        img_size=size, num_classes=0, global_pool="token", mlp_ratio=8 / 3 if swiglu else 4,
        swiglu_mlp=swiglu, init_values=layer_scale_init, use_abs_pos_emb=False, attn_type="rope",
        rope_rotate_half=True, **sizes,
    )  # fmt: skip
    for part in vit.modules():
        if isinstance(part, (nn.Linear, nn.Conv2d)):
            nn.init.trunc_normal_(part.weight, std=0.02)
            nn.init.zeros_(cast(nn.Parameter, part.bias))
    nn.init.trunc_normal_(cast(nn.Parameter, vit.cls_token), std=0.02)
    if qk_norm:
        for block in vit.blocks:
            attention: Any = block.attn
            for norm in ("q_norm", "k_norm"):
                setattr(attention, norm, nn.LayerNorm(attention.head_dim, elementwise_affine=False))
    return vit
