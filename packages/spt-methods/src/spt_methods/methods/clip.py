"""CLIP: images and the texts that go with them pick each other out of the batch.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
figure 3. https://arxiv.org/abs/2103.00020; official code https://github.com/openai/CLIP (the models).
"""

from __future__ import annotations

from typing import Any

from spt_losses import CLIPLoss, LogitScale
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


def clip(self: Any, batch: Any, stage: Stage) -> State:
    """Contrast each image with all texts, and each text with all images, of all ranks.

    Needs: ``backbone``, ``image_projection``, ``text``, ``tokenizer``, ``logit_scale``, ``clip_loss``.
    Reads: any views, each with ``image`` ``(N, C, H, W)`` and, in ``fit``, ``text`` (``N`` strings) or
    ``tokens`` ``(N, L)``.
    Writes: ``embedding`` ``(V * N, F)``, ``image_features`` ``(V * N, D)`` in the common space, and ``label``
    to match, if there are labels; in ``fit`` also ``text_features`` ``(V * N, D)``, ``logit_scale`` and
    ``loss``.
    """
    views = views_of(batch)
    images = images_of(views)
    state: State = {"embedding": self.backbone(images), **labels_of(batch, views)}
    state["image_features"] = self.image_projection(state["embedding"])
    if stage == "fit":
        tokens = tokens_of_texts(self.tokenizer, views, images.device, "CLIP")
        state["text_features"] = self.text(tokens)
        state["logit_scale"] = self.logit_scale()
        state["loss"] = self.clip_loss(
            state["image_features"], state["text_features"], state["logit_scale"]
        )
    return state


class CLIP(Method):
    """CLIP on a timm encoder and a text transformer.

    Its ``text`` takes token numbers to the common space, so zero-shot evaluation is
    ``CLIPZeroShot(..., image_key="image_features", image_backbone=None, text_backbone="text",
    tokenizer_fn=module.tokenizer)``.

    Args:
        encoder_name: A timm model, or a module with ``num_features`` that returns ``(N, F)``.
        text_encoder: A module with ``num_features`` from token numbers ``(N, L)`` to ``(N, F')``, as
            :class:`spt_methods.backbones.TextTransformer` or
            :class:`spt_methods.backbones.HuggingFaceText`; a causal one for the tokenizer's
            vocabulary, of the sizes below, if ``None``.
        tokenizer: From a list of texts to token numbers, for batches with ``text``; the bundled
            byte pairs if ``None``.
        embed_dim: D, width of the common space.
        temperature: tau at the start; it is learned.
        max_scale: The largest 1 / tau.
        text_width: Width of the text transformer.
        text_depth: Its blocks.
        text_heads: Its heads.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``in_chans``, ``optim`` and others.
            The recipe is AdamW (0.9, 0.98, eps 1e-6) at 5e-4, decay 0.2.

    Raises:
        ValueError: If the tokenizer has more tokens, or longer rows, than the text encoder.

    Note:
        The optimisation is that of the paper's section 2.5 and appendix (training code is not public);
        its 2000 steps of warm-up are less than an epoch of its 32, and are one here. The scale's cap keeps
        its gradient alive (:class:`spt_losses.LogitScale`) instead of writing to the parameter. MLPs
        have the exact GELU; the released weights have a sigmoid's approximation.
    """

    paper = Recipe(
        "AdamW", 5e-4, 0.2, batch=32768, epochs=32, warmup_epochs=1, rule="none",
        settings={"betas": (0.9, 0.98), "eps": 1e-6}, options=UNDECAYED,
    )  # fmt: skip

    def __init__(
        self,
        encoder_name: str | nn.Module = "vit_base_patch16_clip_224",
        text_encoder: nn.Module | None = None,
        tokenizer: TextTokenizer | None = None,
        embed_dim: int = 512,
        temperature: float = 0.07,
        max_scale: float = 100.0,
        text_width: int = 512,
        text_depth: int = 12,
        text_heads: int = 8,
        **common: Any,
    ) -> None:
        super().__init__(
            clip,
            encoder_name,
            **common,
        )
        self.tokenizer: Any = BytePairTokenizer() if tokenizer is None else tokenizer
        encoder = text_encoder or text_transformer(
            self.tokenizer, text_width, text_depth, text_heads
        )
        check_tokenizer(self.tokenizer, encoder)
        self.text = text_tower(encoder, embed_dim, bias=False)
        self.image_projection = nn.Linear(self.features, embed_dim, bias=False)
        nn.init.normal_(self.image_projection.weight, std=self.features**-0.5)
        self.logit_scale = LogitScale(1 / temperature, max_scale)
        self.clip_loss = CLIPLoss()
