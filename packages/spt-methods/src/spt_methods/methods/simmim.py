"""SimMIM: mask tokens through the whole encoder, a linear layer to pixels, absolute error.

Xie et al., "SimMIM: A Simple Framework for Masked Image Modeling", CVPR 2022,
eq. 1.
https://arxiv.org/abs/2111.09886; official code https://github.com/microsoft/SimMIM.
"""

from __future__ import annotations

from typing import Any

from spt_losses import SimMIMLoss
from torch import Tensor, nn

from spt_methods.masking.units import UnitMasking
from spt_methods.methods._groups import UNDECAYED_TOKENS
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.views import Stage, State, images_of, labels_of, views_of


def simmim(self: Any, batch: Any, stage: Stage) -> State:
    """Predict the pixels of hidden squares; mask tokens stand in their place.

    Needs: ``backbone`` (a ``ViTTokens`` with a mask token), ``decoder``, ``simmim_loss``, ``masking``.
    Reads: any views, each with ``image`` ``(N, C, H, W)``.
    Writes: ``embedding`` ``(V * N, F)``, of the masked image in ``fit``, and ``label`` to match, if there are
    labels; in ``fit`` also ``predictions`` ``(V * N, C, H, W)``, ``mask`` ``(V * N, P)`` and ``loss``.
    """
    views = views_of(batch)
    images = images_of(views)
    if stage != "fit":
        return {"embedding": self.backbone(images).embedding, **labels_of(batch, views)}
    grid = self.backbone.grid_of(images)
    mask = self.masking(len(images), grid, images.device)
    tokens = self.backbone(images, mask=mask)
    state: State = {"embedding": tokens.embedding, "mask": mask, **labels_of(batch, views)}
    state["predictions"] = self.decoder(tokens.patches, grid)
    state["loss"] = self.simmim_loss(state["predictions"], images, mask.view(-1, *grid))
    return state


class PixelDecoder(nn.Module):
    """A linear layer from each token to the pixels of its patch.

    Args:
        embed_dim: Width of the tokens.
        patch_size: Side of a patch.
        channels: Of the images.
    """

    def __init__(self, embed_dim: int, patch_size: int, channels: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(embed_dim, patch_size**2 * channels, kernel_size=1)
        self.shuffle = nn.PixelShuffle(patch_size)

    def forward(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """Images ``(B, C, H, W)`` of tokens ``(B, N, D)``."""
        maps = patches.mT.unflatten(2, grid)
        out: Tensor = self.shuffle(self.projection(maps))
        return out


class SimMIM(Method):
    """SimMIM on a timm vision transformer.

    Args:
        encoder_name: A timm transformer, by name or as a module; ``beit_*`` models have relative position
            biases, as the paper's, and no absolute positions.
        mask_ratio: Share of hidden squares.
        mask_size: Side of a square in pixels, a multiple of the patch's.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``in_chans``, ``optim`` and others.
            The recipe is AdamW (0.9, 0.999) at 8e-4 for a batch of 2048, decay 0.05.

    Raises:
        ValueError: If patches do not fill the squares.

    Note:
        Each block of ``beit_*`` has biases of its own, as the official code when it fine-tunes; when it
        pretrains, all share one table (``encoder_kwargs={"use_rel_pos_bias": False,
        "use_shared_rel_pos_bias": True}``).
    """

    paper = Recipe(
        "AdamW", 8e-4, 0.05, batch=2048, epochs=800, warmup_epochs=10, base_batch=2048,
        end_lr=1e-5, augmentation="mae", options=UNDECAYED_TOKENS,
    )  # fmt: skip

    def __init__(
        self,
        encoder_name: str | nn.Module = "beit_base_patch16_224",
        mask_ratio: float = 0.6,
        mask_size: int = 32,
        **common: Any,
    ) -> None:
        super().__init__(
            simmim,
            encoder_name,
            tokens="mask",
            **common,
        )
        encoder: Any = self.backbone
        side = encoder.square_patch
        if mask_size % side:
            raise ValueError(
                f"`mask_size` must be a multiple of the patch's {side}, got {mask_size}."
            )
        self.masking = UnitMasking(mask_ratio, mask_size // side)
        self.decoder = PixelDecoder(encoder.embed_dim, side, encoder.in_chans)
        self.simmim_loss = SimMIMLoss()
