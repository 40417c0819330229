"""CMAE: MAE whose reconstructed features, averaged, also find the image's shifted crop in the batch.

Huang et al., "Contrastive Masked Autoencoders are Stronger Vision Learners", TPAMI 2023,
eq. 5.
https://arxiv.org/abs/2207.13532; official code https://github.com/ZhichengHuang/CMAE.
"""

from __future__ import annotations

from typing import Any

import torch
from spt_losses import CMAEContrastLoss, MAELoss
from torch import Tensor, nn

from spt_methods.backbones.heads import mlp_head
from spt_methods.backbones.mae_decoder import MAEDecoder
from spt_methods.backbones.sines import masked_autoencoder_init, xavier_init
from spt_methods.backbones.teacher import momentum_pair
from spt_methods.masking.patches import PatchMasking
from spt_methods.masking.seeded import SeededMasking
from spt_methods.methods._groups import UNDECAYED_TOKENS
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.views import Stage, State, images_of, labels_of, two_views_of, views_of


def cmae(self: Any, batch: Any, stage: Stage) -> State:
    """Reconstruct hidden patches of the first view, and contrast its features with the second's.

    Needs: ``backbone`` and ``projector`` (each a ``TeacherStudentWrapper``, the former of a ``ViTTokens``),
    ``decoder``, ``feature_decoder``, ``predictor``, ``mae_loss``, ``cmae_loss``, ``masking``, ``shift``,
    ``contrast_weight``.
    Reads: in ``fit`` two views of one crop, each with ``image`` ``(N, C, H, W)``, the second with other
    colours; any views elsewhere.
    Writes: ``embedding`` ``(N, F)`` of the student, of the first view's visible patches in ``fit`` and of all
    views elsewhere, and ``label`` to match, if there are labels; in ``fit`` also ``predictions``
    ``(N, P, p * p * C)``, ``mask`` ``(N, P)``, ``loss_recon``, ``loss_contrast`` and ``loss``.
    """
    student = self.backbone.student
    if stage != "fit":
        views = views_of(batch)
        return {"embedding": student(images_of(views)).embedding, **labels_of(batch, views)}
    first, second = two_views_of(batch, "CMAE")
    images, shifted = self.shift(first["image"], second["image"])
    grid = student.grid_of(images)
    kept = self.masking(images.new_empty(len(images), grid[0] * grid[1], 0), *grid)
    tokens = student.tokens(images, ids_keep=kept.ids_keep)
    state: State = {"embedding": student.pool(tokens), **labels_of(batch, [first])}
    state["mask"] = kept.mask
    state["predictions"] = self.decoder(tokens, kept.mask, kept.ids_keep)
    state["loss_recon"] = self.mae_loss(state["predictions"], images, kept.mask)
    features = self.feature_decoder(tokens, kept.mask, kept.ids_keep).mean(1)
    query = self.predictor(self.projector.forward_student(features))
    with torch.no_grad():
        teacher = self.backbone.teacher
        whole = teacher.block_outputs(shifted)[-1][:, teacher.num_prefix_tokens :]
    state["loss_contrast"] = self.cmae_loss(query, self.projector.forward_teacher(whole.mean(1)))
    # 2 tau, as the official code: gradients then do not grow as tau falls
    scale = 2 * self.cmae_loss.temperature * self.contrast_weight
    state["loss"] = state["loss_recon"] + scale * state["loss_contrast"]
    return state


class PixelShift(SeededMasking):
    """Crop the first view at its corner, and each image of the second up to some pixels away.

    Args:
        pixels: Largest shift, down and to the right; also what both crops are smaller by.
        seed: See :class:`SeededMasking`.

    Raises:
        ValueError: If ``pixels`` is below 0.
    """

    def __init__(self, pixels: int, seed: int = 0) -> None:
        super().__init__(seed)
        if pixels < 0:
            raise ValueError(f"`pixel_shift` must be >= 0, got {pixels}.")
        self.pixels = pixels

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Crops ``(N, C, H - pixels, W - pixels)`` of views ``(N, C, H, W)``."""
        if not self.pixels:
            return first, second
        size, _, height, width = second.shape
        height, width = height - self.pixels, width - self.pixels
        generator = self.next_generator(second.device)
        by = torch.randint(self.pixels + 1, (2, size, 1), generator=generator, device=second.device)
        rows = by[0] + torch.arange(height, device=second.device)  # (N, H)
        columns = by[1] + torch.arange(width, device=second.device)  # (N, W)
        image = torch.arange(size, device=second.device).view(-1, 1, 1)
        moved = second.movedim(1, 3)[image, rows.unsqueeze(2), columns.unsqueeze(1)]
        return first[..., :height, :width], moved.movedim(3, 1)


class CMAE(Method):
    """CMAE on a timm vision transformer; evaluates the student.

    Args:
        encoder_name: A timm ``VisionTransformer`` or ``Eva``, by name or as a module.
        mask_ratio: Share of hidden patches; the released recipe hides 0.65, in squares of 2.
        block_size: Side of the squares that are hidden together, in patches.
        pixel_shift: Pixels by which the second view is shifted at most. Views are given larger by
            as much; with 0 they are taken as they are. The paper's is 31, with views of 255 pixels.
        decoder_embed_dim: Width of both decoders.
        decoder_depth: Blocks of the pixels' decoder.
        feature_decoder_depth: Blocks of the features' decoder.
        decoder_num_heads: Heads of both.
        projector_hidden_dim: Width of the hidden layers of projector and predictor.
        projector_dim: Width of the vectors that are contrasted.
        temperature: tau of the contrast.
        contrast_weight: Weight of the contrast, beside the factor 2 tau of the official code.
        norm_pix_loss: Standardise each patch of the target.
        ema_decay_start: m of the teacher at the first step.
        ema_decay_end: m of the teacher at the last step.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``in_chans``, ``optim`` and others.
            The recipe is AdamW (0.9, 0.95) at 1.5e-4 for a batch of 256, decay 0.05.

    Note:
        Both views are of one crop, the second in other colours, which no preset of views gives.
        A named encoder gets fixed sine positions and a Xavier start, unless it is ``pretrained``.
        The features' decoder returns vectors of the encoder's width, which the official one does for
        patches of 16 x 16 x 3 alone. BatchNorm has PyTorch's epsilon. As in the official code the
        teacher's features do not pass its last norm.
    """

    paper = Recipe(
        "AdamW", 1.5e-4, 0.05, batch=4096, epochs=800, warmup_epochs=40,
        settings={"betas": (0.9, 0.95)}, options=UNDECAYED_TOKENS,
    )  # fmt: skip

    def __init__(
        self,
        encoder_name: str | nn.Module = "vit_base_patch16_224",
        mask_ratio: float = 0.75,
        block_size: int = 1,
        pixel_shift: int = 31,
        decoder_embed_dim: int = 512,
        decoder_depth: int = 8,
        feature_decoder_depth: int = 2,
        decoder_num_heads: int = 16,
        projector_hidden_dim: int = 1536,
        projector_dim: int = 256,
        temperature: float = 0.07,
        contrast_weight: float = 1.0,
        norm_pix_loss: bool = True,
        ema_decay_start: float = 0.996,
        ema_decay_end: float = 0.996,
        **common: Any,
    ) -> None:
        super().__init__(
            cmae,
            encoder_name,
            tokens=True,
            **common,
        )
        encoder: Any = self.backbone
        if isinstance(encoder_name, str):
            masked_autoencoder_init(encoder, pretrained=common.get("pretrained", False))
        rows, columns = encoder.default_grid
        width, side = encoder.embed_dim, encoder.square_patch

        def decoder(output_dim: int, depth: int) -> MAEDecoder:
            made = MAEDecoder(
                width,
                decoder_embed_dim,
                output_dim,
                rows * columns,
                depth,
                decoder_num_heads,
                grid_size=(rows, columns),
                num_prefix_tokens=encoder.num_prefix_tokens,
            )
            xavier_init(made)
            return made

        self.decoder = decoder(side**2 * encoder.in_chans, decoder_depth)
        self.feature_decoder = decoder(width, feature_decoder_depth)
        widths = (projector_hidden_dim, projector_dim)
        decays = (ema_decay_start, ema_decay_end)
        self.backbone = momentum_pair(encoder, *decays)
        self.projector = momentum_pair(mlp_head(width, widths, hidden_bias=True), *decays)
        self.predictor = mlp_head(projector_dim, widths, hidden_bias=True)
        self.masking = PatchMasking(mask_ratio, block_size)
        self.shift = PixelShift(pixel_shift)
        self.mae_loss = MAELoss(side, patch_normalize=norm_pix_loss)
        self.cmae_loss = CMAEContrastLoss(temperature)
        self.contrast_weight = contrast_weight
