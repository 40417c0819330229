"""BEiT: classify the visual token of every hidden patch.

Bao et al., "BEiT: BERT Pre-Training of Image Transformers", ICLR 2022, eq. 4.
https://arxiv.org/abs/2106.08254; official code https://github.com/microsoft/unilm/tree/master/beit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from spt_losses import BEiTLoss
from torch import Tensor, nn

from spt_methods.masking.blocks import BlockMasking, smallest_block
from spt_methods.masking.places import hide
from spt_methods.methods._groups import UNDECAYED_TOKENS
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.views import Batch, Stage, State, images_of, labels_of, views_of


def beit(self: Any, batch: Any, stage: Stage) -> State:
    """Predict the tokens of hidden blocks of patches.

    Needs: ``backbone`` (a ``ViTTokens`` with a mask token), ``tokenizer``, ``classifier``, ``beit_loss``,
    ``masking``.
    Reads: any views, each with ``image`` ``(N, C, H, W)`` and, if the tokenizer wants another size,
    ``token_image`` of the same crop.
    Writes: ``embedding`` ``(V * N, F)``, of the masked image in ``fit``, and ``label`` to match, if there are
    labels; in ``fit`` also ``logits`` ``(M, vocab)`` and ``targets`` ``(M,)`` at the hidden places, ``mask``
    ``(V * N, P)`` and ``loss``.
    """
    views = views_of(batch)
    images = images_of(views)
    if stage != "fit":
        return {"embedding": self.backbone(images).embedding, **labels_of(batch, views)}
    grid = self.backbone.grid_of(images)
    hidden = hide(self.masking, len(images), grid, images.device)
    tokens = self.backbone(images, mask=hidden.mask)
    state: State = {"embedding": tokens.embedding, "mask": hidden.mask, **labels_of(batch, views)}
    state["targets"] = hidden.of(tokens_of_views(self.tokenizer, views, grid))
    state["logits"] = self.classifier(hidden.of(tokens.patches))
    state["loss"] = self.beit_loss(state["logits"], state["targets"])
    return state


@torch.no_grad()
def tokens_of_views(
    tokenizer: Callable[[Tensor], Tensor], views: list[Batch], grid: tuple[int, int]
) -> Tensor:
    """The visual tokens of all views, int64 ``(V * N, P)``.

    Raises:
        ValueError: If the tokenizer gives another number of tokens than there are patches.
    """
    images = torch.cat([view.get("token_image", view["image"]) for view in views])
    tokens = tokenizer(images)
    tokens = tokens.flatten(1)
    if tokens.shape[1] != grid[0] * grid[1] or tokens.is_floating_point():
        raise ValueError(
            f"The tokenizer must give one integer for each of the {grid[0]} x {grid[1]} patches, got "
            f"{tokens.dtype} of shape {tuple(tokens.shape)}. Give a view 'token_image' of a size that "
            "fits, or a tokenizer of the encoder's patch size."
        )
    return tokens


class FrozenTokenizer(nn.Module):
    """A tokenizer that does not learn: a module with ``tokenize``, or any callable.

    Args:
        tokenizer: From images ``(B, C, H, W)`` to integers ``(B, N)`` or ``(B, h, w)``.
    """

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        if not callable(getattr(tokenizer, "tokenize", tokenizer)):
            raise TypeError(
                f"`tokenizer` must be callable or have `tokenize`, got {type(tokenizer).__name__}."
            )
        self.tokenizer = tokenizer
        if isinstance(tokenizer, nn.Module):
            tokenizer.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FrozenTokenizer:
        """The tokenizer stays in evaluation mode."""
        super().train(False)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Tokens of images ``(B, C, H, W)``."""
        out: Tensor = getattr(self.tokenizer, "tokenize", self.tokenizer)(images)
        return out


class BEiT(Method):
    """BEiT on a timm vision transformer.

    Args:
        encoder_name: A timm transformer, by name or as a module; ``beit_*`` models have relative position
            biases, as the paper's, and no absolute positions.
        tokenizer: A trained :class:`VQTokenizer`, or anything that takes images to integers, one for
            each patch; there is no default, since what it knows is what BEiT learns.
        vocab_size: Its tokens; taken from the tokenizer's ``vocab_size`` if it has one.
        mask_ratio: Share of hidden patches.
        drop_path_rate: Stochastic depth.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``in_chans``, ``optim`` and others.
            The recipe is AdamW (0.9, 0.999) at 1.5e-3 for a batch of 2048, decay 0.05, gradients
            clipped at norm 3.

    Note:
        Each block of ``beit_*`` has biases of its own, as the official code when it fine-tunes; when it
        pretrains, all share one table (``encoder_kwargs={"use_rel_pos_bias": False,
        "use_shared_rel_pos_bias": True}``).
    """

    paper = Recipe(
        "AdamW", 1.5e-3, 0.05, batch=2048, epochs=800, warmup_epochs=10, base_batch=2048,
        end_lr=1e-5, augmentation="beit", options={**UNDECAYED_TOKENS, "gradient_clip_val": 3.0},
    )  # fmt: skip

    def __init__(
        self,
        encoder_name: str | nn.Module = "beit_base_patch16_224",
        *,
        tokenizer: Any,
        vocab_size: int = 8192,
        mask_ratio: float = 75 / 196,
        drop_path_rate: float = 0.1,
        **common: Any,
    ) -> None:
        named = isinstance(encoder_name, str)
        common["encoder_kwargs"] = {
            **({"init_values": 0.1} if named else {}),  # LayerScale
            **(common.get("encoder_kwargs") or {}),
        }
        vocab_size = int(getattr(tokenizer, "vocab_size", vocab_size))
        super().__init__(
            beit,
            encoder_name,
            tokens="mask",
            drop_path_rate=drop_path_rate if named else 0.0,
            **common,
        )
        encoder: Any = self.backbone
        self.tokenizer = FrozenTokenizer(tokenizer)
        self.masking = BlockMasking(mask_ratio, smallest_block(encoder.default_grid))
        self.classifier = nn.Linear(encoder.embed_dim, vocab_size)
        nn.init.trunc_normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)
        self.beit_loss = BEiTLoss()
