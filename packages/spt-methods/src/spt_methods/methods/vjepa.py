"""V-JEPA: predict a teacher's features of large blocks of a video from what is around them.

Bardes et al., "Revisiting Feature Prediction for Learning Visual Representations from Video", 2024,
section 3. https://arxiv.org/abs/2404.08471; official code https://github.com/facebookresearch/jepa.
"""

from __future__ import annotations

from typing import Any

from spt_losses import VJEPALoss
from torch import nn

from spt_methods.backbones.teacher import TeacherStudentWrapper
from spt_methods.methods._groups import UNDECAYED
from spt_methods.methods._masked_latent import (
    both_ranges,
    clips_of,
    latent_predictor,
    predict_both,
    video_encoder,
)
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.views import Stage, State


def vjepa(self: Any, batch: Any, stage: Stage) -> State:
    """Predict the teacher's features of hidden blocks from the student's of the rest, twice.

    Needs: ``backbone`` (a ``TeacherStudentWrapper`` of a ``VideoViT``), ``predictor``, ``maskings``,
    ``vjepa_loss``.
    Reads: ``video`` ``(N, T, C, H, W)``.
    Writes: ``embedding`` ``(N, F)`` of whole videos by the teacher, averaged, and ``label``, if there are
    labels; in ``fit`` also ``predictions`` and ``targets``, each a list with ``(N, m, D)`` for each kind of
    mask, and ``loss``.
    """
    clips, labels = clips_of(batch)
    whole = self.backbone.forward_teacher(clips)
    state: State = {"embedding": whole.embedding, **labels}
    if stage == "fit":
        student = self.backbone.forward_student
        hidden = predict_both(self, student, clips, whole.patches, whole.grid_size)
        state = {**hidden, **state}
        state["loss"] = self.vjepa_loss(state["predictions"], state["targets"])
    return state


class VJEPA(Method):
    """V-JEPA on a vision transformer over tubelets; evaluates the teacher, averaged over patches.

    Args:
        encoder_name: A timm ``VisionTransformer`` by name, whose blocks a
            :class:`spt_methods.backbones.VideoViT` takes, or such an encoder as a module.
        num_frames: Frames of a video.
        tubelet_size: Frames of a tubelet.
        predictor_embed_dim: Width of the predictor.
        predictor_depth: Its blocks.
        predictor_num_heads: Its heads; those of the encoder if ``None``, as the official code.
        ema_decay_start: m of the teacher at the first step.
        ema_decay_end: m of the teacher at the last step.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``in_chans``, ``optim`` and others.
            The recipe is AdamW, 6.25e-4 for a batch of 3072, decay 0.04 to 0.4, gradients clipped at
            norm 10.

    Raises:
        ValueError: If ``pretrained`` is asked for, or sizes do not divide.

    Note:
        The official code clips encoder and predictor each by its own norm, after the warm-up only;
        here the norm is that of both, from the start. Its schedules of rate, decay and m are cut at
        four fifths; here they run to their ends. An epoch there is 300 steps. Frozen features are
        read by an attentive probe in the paper; ``embedding`` is their mean.
    """

    paper = Recipe(
        "AdamW", 6.25e-4, 0.04, batch=3072, epochs=300, warmup_epochs=40, base_batch=3072,
        weight_decay_end=0.4, start_lr=2e-4, end_lr=1e-6, options={**UNDECAYED, "gradient_clip_val": 10.0},
    )  # fmt: skip

    def __init__(
        self,
        encoder_name: str | nn.Module = "vit_large_patch16_224",
        num_frames: int = 16,
        tubelet_size: int = 2,
        predictor_embed_dim: int = 384,
        predictor_depth: int = 12,
        predictor_num_heads: int | None = None,
        ema_decay_start: float = 0.998,
        ema_decay_end: float = 1.0,
        **common: Any,
    ) -> None:
        encoder: Any = encoder_name
        if isinstance(encoder_name, str):
            sizes = {"num_frames": num_frames, "tubelet_size": tubelet_size}
            encoder = video_encoder(encoder_name, common, **sizes)
        super().__init__(
            vjepa,
            encoder,
            **common,
        )
        heads = predictor_num_heads or encoder.num_heads
        self.predictor = latent_predictor(
            encoder, predictor_embed_dim, predictor_depth, heads, encoder.embed_dim
        )
        self.maskings = both_ranges()
        self.backbone = TeacherStudentWrapper(
            encoder, True, ema_decay_start, ema_decay_end, schedule="linear"
        )
        self.vjepa_loss = VJEPALoss()
