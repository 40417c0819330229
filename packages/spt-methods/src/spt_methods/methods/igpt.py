"""AIM, the continuous successor of iGPT: predict the pixels of the next patch from those before it.

El-Nouby et al., "Scalable Pre-training of Large Autoregressive Image Models", ICML 2024, section 3 and
eq. 2. https://arxiv.org/abs/2401.08541; official code https://github.com/apple/ml-aim (the models).
After Chen et al., "Generative Pretraining from Pixels", ICML 2020.
"""

from __future__ import annotations

from typing import Any

import torch
from spt_losses import AIMLoss
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from spt_methods.backbones.causal import PrefixViT
from spt_methods.backbones.sines import masked_autoencoder_init, xavier_init
from spt_methods.masking.seeded import SeededMasking
from spt_methods.methods._groups import UNDECAYED
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.views import Stage, State, images_of, labels_of, views_of


def igpt(self: Any, batch: Any, stage: Stage) -> State:
    """Predict each patch beyond a random prefix from the patches before it, in raster order.

    Within the prefix attention goes both ways, beyond it only backwards; evaluation sees the whole
    image both ways, which is what the prefix trains for.

    Needs: ``backbone`` (a ``PrefixViT`` without prefix tokens), ``head``, ``aim_loss``, ``prefix``,
    ``feature_layers``.
    Reads: any views, each with ``image`` ``(N, C, H, W)``.
    Writes: ``embedding`` ``(V * N, F)``, the mean of the last blocks over patches, and ``label`` to match, if
    there are labels; in ``fit`` also ``predictions`` ``(V * N, P, p * p * C)``, of the patch after each (zero
    where it is in the prefix: the head does not run there), ``prefix_length`` ``(V * N,)`` and ``loss``.
    """
    views = views_of(batch)
    images = images_of(views)
    state: State = labels_of(batch, views)
    if stage == "fit":
        rows, columns = self.backbone.grid_of(images)
        state["prefix_length"], places = self.prefix(len(images), rows * columns, images.device)
    outputs = self.backbone.prefix_outputs(images, state.get("prefix_length"))
    state["embedding"] = torch.stack(outputs[-self.feature_layers :]).mean((0, 2))
    if stage == "fit":
        tokens = self.backbone.norm(outputs[-1])
        predicted = self.head(tokens.flatten(0, 1).index_select(0, places))
        full = predicted.new_zeros(len(images) * rows * columns, predicted.shape[1])
        full = full.index_copy(0, places, predicted)
        state["predictions"] = full.view(len(images), rows * columns, -1)
        state["loss"] = self.aim_loss(state["predictions"], images, state["prefix_length"])
    return state


class RandomPrefix(SeededMasking):
    """A number of patches for each image, uniform over 1 ... ``length - 1``.

    Drawn on the processor, so that the number of predicted patches is known there: the device is
    not waited for.
    """

    def forward(self, size: int, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Prefix lengths, int64 ``(size,)``, and the places whose next patch is beyond the prefix.

        Returns:
            Lengths, and places in the flattened batch of ``(size, length)`` tokens, shape ``(M,)``.
        """
        generator = self.next_generator(torch.device("cpu"))
        lengths = torch.randint(1, length, (size,), generator=generator)
        next_place = torch.arange(1, length + 1)
        counted = (next_place >= lengths[:, None]) & (next_place < length)
        places = counted.flatten().nonzero().flatten()
        return lengths.to(device, non_blocking=True), places.to(device, non_blocking=True)


class ResidualMLP(nn.Module):
    """``x + MLP(norm(x))``, patch by patch.

    Args:
        dim: Width.
        mlp_ratio: Hidden width over ``dim``.
    """

    def __init__(self, dim: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shape as ``x`` ``(..., dim)``."""
        out: Tensor = x + self.mlp(self.norm(x))
        return out


def pixel_head(in_dim: int, hidden_dim: int, depth: int, out_dim: int) -> nn.Sequential:
    """The deep head of section 3.2: residual MLPs between two linear layers, no attention."""
    blocks = (ResidualMLP(hidden_dim) for _ in range(depth))
    norm = nn.LayerNorm(hidden_dim, eps=1e-6)
    return nn.Sequential(
        nn.Linear(in_dim, hidden_dim), *blocks, norm, nn.Linear(hidden_dim, out_dim)
    )


class iGPT(Method):
    """AIM on a timm vision transformer.

    Args:
        encoder_name: A timm ``VisionTransformer`` or ``Eva`` without class token and registers, by name
            or as a module.
        head_dim: Width of the prediction head.
        head_depth: Its blocks.
        feature_layers: The embedding is the mean of this many last blocks.
        norm_pix_loss: Standardise each patch of the target.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``in_chans``, ``optim`` and others.
            The recipe is AdamW (0.9, 0.95) at 1e-3 for a batch of 4096, decay 0.05, gradients clipped
            at norm 1.

    Raises:
        ValueError: If the encoder has prefix tokens, or fewer blocks than ``feature_layers``.

    Note:
        A named encoder is AIM's: no class token, no biases in its blocks, fixed sine positions and,
        unless ``pretrained``, Xavier weights; a given module stays as it is. The head and the loss are
        those of the paper's text, since the public code has neither: the head's blocks have the
        trunk's form, and the loss is the mean over all predicted patches of the batch. iGPT's own
        targets, clusters of colours, are not offered. ``epochs`` are the paper's 500,000 steps in
        passes over ImageNet-1k's size.
    """

    paper = Recipe(
        "AdamW", 1e-3, 0.05, batch=4096, epochs=1600, warmup_epochs=100, rule="none",
        augmentation="mae", settings={"betas": (0.9, 0.95)},
        options={**UNDECAYED, "gradient_clip_val": 1.0},
    )  # fmt: skip

    def __init__(
        self,
        encoder_name: str | nn.Module = "vit_base_patch16_224",
        head_dim: int = 2048,
        head_depth: int = 12,
        feature_layers: int = 6,
        norm_pix_loss: bool = True,
        **common: Any,
    ) -> None:
        named = isinstance(encoder_name, str)
        plain = {
            "class_token": False,
            "global_pool": "avg",
            "fc_norm": False,
            "qkv_bias": False,
            "proj_bias": False,
        }
        common["encoder_kwargs"] = {
            **(plain if named else {}),
            **(common.get("encoder_kwargs") or {}),
        }
        super().__init__(
            igpt,
            encoder_name,
            tokens=True,
            **common,
        )
        encoder: Any = self.backbone
        if encoder.num_prefix_tokens:
            raise ValueError(
                f"iGPT needs an encoder of patches alone, got one with {encoder.num_prefix_tokens} "
                "class or register tokens. Make it with `class_token=False`."
            )
        if not 1 <= feature_layers <= len(encoder.vit.blocks):
            raise ValueError(
                f"`feature_layers` must be between 1 and the {len(encoder.vit.blocks)} blocks of the "
                f"encoder, got {feature_layers}."
            )
        if named:
            masked_autoencoder_init(encoder, pretrained=common.get("pretrained", False))
        self.backbone = PrefixViT(encoder.vit)
        self.backbone.rope = encoder.rope
        side = encoder.square_patch
        self.feature_layers = feature_layers
        self.prefix = RandomPrefix()
        self.head = pixel_head(encoder.embed_dim, head_dim, head_depth, side**2 * encoder.in_chans)
        xavier_init(self.head)
        self.aim_loss = AIMLoss(side, norm_pix_loss)
