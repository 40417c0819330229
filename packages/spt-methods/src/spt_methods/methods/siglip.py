"""SigLIP: of every image and every text of the batch, do they belong together?

Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023, eq. 2 and algorithm 1.
https://arxiv.org/abs/2303.15343; official code https://github.com/google-research/big_vision,
``trainers/proj/image_text/siglip.py``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from spt_losses import LogitScale, SigLIPLoss
from torch import nn

from spt_methods.backbones.bpe import BytePairTokenizer
from spt_methods.methods._groups import UNDECAYED
from spt_methods.methods._image_text import (
    TextTokenizer,
    check_tokenizer,
    text_tower,
    text_transformer,
    tokens_of_texts,
)
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.views import Stage, State, images_of, labels_of, views_of


def siglip(self: Any, batch: Any, stage: Stage) -> State:
    """Classify each pair of an image and a text, of all ranks, as belonging together or not.

    Needs: ``backbone``, ``text``, ``tokenizer``, ``logit_scale``, ``logit_bias``, ``siglip_loss``.
    Reads: any views, each with ``image`` ``(N, C, H, W)`` and, in ``fit``, ``text`` (``N`` strings) or
    ``tokens`` ``(N, L)``.
    Writes: ``embedding`` ``(V * N, F)``, which is in the common space, the same as ``image_features``, and
    ``label`` to match, if there are labels; in ``fit`` also ``text_features`` ``(V * N, F)``,
    ``logit_scale``, ``logit_bias`` and ``loss``.
    """
    views = views_of(batch)
    images = images_of(views)
    state: State = {"embedding": self.backbone(images), **labels_of(batch, views)}
    state["image_features"] = state["embedding"]
    if stage == "fit":
        tokens = tokens_of_texts(self.tokenizer, views, images.device, "SigLIP")
        state["text_features"] = self.text(tokens)
        state["logit_scale"], state["logit_bias"] = self.logit_scale(), self.logit_bias
        state["loss"] = self.siglip_loss(
            state["image_features"],
            state["text_features"],
            state["logit_scale"],
            state["logit_bias"],
        )
    return state


class SigLIP(Method):
    """SigLIP on a timm encoder and a text transformer; zero-shot evaluation as for :class:`CLIP`.

    Args:
        encoder_name: A timm model, or a module with ``num_features`` that returns ``(N, F)``; the
            paper's pools by attention.
        text_encoder: As for :class:`CLIP`; by default one with attention in both directions, read at
            the last of 64 places.
        tokenizer: As for :class:`CLIP`.
        init_scale: t at the start; its logarithm is learned.
        init_bias: b at the start; it is learned.
        text_width: Width of the text transformer.
        text_depth: Its blocks.
        text_heads: Its heads.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``in_chans``, ``optim`` and others.
            The recipe is AdamW (0.9, 0.95) at 1e-3, decay 1e-4, gradients clipped at norm 1.

    Raises:
        ValueError: If the tokenizer has more tokens, or longer rows, than the text encoder.

    Note:
        As in the official code only the text is projected, to the image's width. The official runs
        count examples, not epochs, and differ in length: 40 epochs with one of warm-up stand for them.
        Their optimizer decays all weights; ours spares biases, norms and the scale.
    """

    paper = Recipe(
        "AdamW", 1e-3, 1e-4, batch=32768, epochs=40, warmup_epochs=1, rule="none",
        settings={"betas": (0.9, 0.95)}, options={**UNDECAYED, "gradient_clip_val": 1.0},
    )  # fmt: skip

    def __init__(
        self,
        encoder_name: str | nn.Module = "vit_base_patch16_siglip_224",
        text_encoder: nn.Module | None = None,
        tokenizer: TextTokenizer | None = None,
        init_scale: float = 10.0,
        init_bias: float = -10.0,
        text_width: int = 768,
        text_depth: int = 12,
        text_heads: int = 12,
        **common: Any,
    ) -> None:
        super().__init__(
            siglip,
            encoder_name,
            **common,
        )
        self.tokenizer: Any = (
            BytePairTokenizer(context_length=64) if tokenizer is None else tokenizer
        )
        encoder = text_encoder or text_transformer(
            self.tokenizer,
            text_width,
            text_depth,
            text_heads,
            causal=False,
            pool="last",
            norm_eps=1e-6,
        )
        check_tokenizer(self.tokenizer, encoder)
        self.text = text_tower(encoder, self.features, bias=True)
        self.logit_scale = LogitScale(init_scale, math.inf)
        self.logit_bias = nn.Parameter(torch.tensor(float(init_bias)))
        self.siglip_loss = SigLIPLoss()
