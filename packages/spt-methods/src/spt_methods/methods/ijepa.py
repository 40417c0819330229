"""I-JEPA: predict a teacher's features of four blocks from a context, in feature space.

Assran et al., "Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture",
CVPR 2023, section 3. https://arxiv.org/abs/2301.08243; official code https://github.com/facebookresearch/ijepa.
"""

from __future__ import annotations

from typing import Any

from spt_losses import IJEPALoss, ijepa_targets
from torch import nn

from spt_methods.backbones.pos_embed import get_sincos_pos_embed
from spt_methods.backbones.predictor import BlockPredictor, truncated_init
from spt_methods.backbones.sines import fix_positions
from spt_methods.backbones.teacher import TeacherStudentWrapper
from spt_methods.masking.multiblock import IJEPAMasking
from spt_methods.methods._groups import UNDECAYED
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.views import Stage, State, images_of, labels_of, views_of


def ijepa(self: Any, batch: Any, stage: Stage) -> State:
    """Predict the teacher's features of each target block from the student's of the context.

    Needs: ``backbone`` (a ``TeacherStudentWrapper`` of a ``ViTTokens``), ``predictor``, ``ijepa_loss``,
    ``masking``, ``embedding_source``.
    Reads: any views, each with ``image`` ``(N, C, H, W)``.
    Writes: ``embedding`` ``(V * N, F)`` of whole images, by the teacher (or the student, if
    ``embedding_source`` says so), and ``label`` to match, if there are labels; in ``fit`` also
    ``predictions`` and ``targets`` ``(T * V * N, m, D)``, block by block, and ``loss``.
    """
    views = views_of(batch)
    images = images_of(views)
    by_teacher = stage == "fit" or self.embedding_source == "teacher"
    encode = self.backbone.forward_teacher if by_teacher else self.backbone.forward_student
    whole = encode(images)
    state: State = {"embedding": whole.embedding, **labels_of(batch, views)}
    if stage == "fit":
        masks = self.masking(len(images), whole.grid_size, images.device)
        context = self.backbone.forward_student(images, ids_keep=masks.context_idx).patches
        state["predictions"] = self.predictor(context, masks.context_idx, masks.target_idx)
        state["targets"] = ijepa_targets(whole.patches, masks.target_idx)
        state["loss"] = self.ijepa_loss(state["predictions"], state["targets"])
    return state


class IJEPA(Method):
    """I-JEPA on a timm vision transformer; evaluates the teacher, averaged over patches.

    Args:
        model_or_model_name: A timm ``VisionTransformer``, by name or as a module.
        predictor_embed_dim: Width of the predictor.
        predictor_depth: Its blocks; 12 for ViT-H.
        predictor_num_heads: Its heads; those of the encoder if ``None``, as the official code.
        num_targets: Blocks to predict.
        target_scale: Range of a block's share of the patches.
        target_aspect_ratio: Range of a block's height over width.
        context_scale: Range of the context block's share.
        min_keep: Least patches of the context, where possible.
        ema_decay_start: m of the teacher at the first step.
        ema_decay_end: m of the teacher at the last step.
        embedding_source: ``"teacher"`` or ``"student"``, outside of training; in training the teacher's
            pass is there anyway.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``in_chans``, ``optim`` and others.
            The recipe is AdamW, 1e-3 for a batch of 2048, decay 0.04 to 0.4.

    Raises:
        ValueError: If ``embedding_source`` is unknown.

    Note:
        A named encoder has no class token, fixed sine positions and, unless ``pretrained``, the
        official initialisation; a given module stays as it is. m rises over the whole run; the
        official run ends at four fifths of its schedule.
    """

    paper = Recipe(
        "AdamW", 1e-3, 0.04, batch=2048, epochs=300, warmup_epochs=15, base_batch=2048,
        weight_decay_end=0.4, start_lr=1e-4, end_lr=1e-6, augmentation="ijepa", options=UNDECAYED,
    )  # fmt: skip

    def __init__(
        self,
        model_or_model_name: str | nn.Module = "vit_base_patch16_224",
        predictor_embed_dim: int = 384,
        predictor_depth: int = 6,
        predictor_num_heads: int | None = None,
        num_targets: int = 4,
        target_scale: tuple[float, float] = (0.15, 0.2),
        target_aspect_ratio: tuple[float, float] = (0.75, 1.5),
        context_scale: tuple[float, float] = (0.85, 1.0),
        min_keep: int = 10,
        ema_decay_start: float = 0.996,
        ema_decay_end: float = 1.0,
        embedding_source: str = "teacher",
        **common: Any,
    ) -> None:
        if embedding_source not in ("teacher", "student"):
            raise ValueError(
                f"`embedding_source` must be 'teacher' or 'student', got {embedding_source!r}."
            )
        named = isinstance(model_or_model_name, str)
        pooled = {"class_token": False, "global_pool": "avg", "fc_norm": False}
        common["encoder_kwargs"] = {
            **(pooled if named else {}),
            **(common.get("encoder_kwargs") or {}),
        }
        super().__init__(
            ijepa,
            model_or_model_name,
            tokens=True,
            **common,
        )
        encoder: Any = self.backbone
        if named and not common.get("pretrained", False):
            truncated_init(encoder)
            fix_positions(encoder)
        rows, columns = encoder.default_grid
        positions = get_sincos_pos_embed(predictor_embed_dim, rows * columns, "2d", (rows, columns))
        heads = predictor_num_heads or encoder.vit.blocks[0].attn.num_heads
        self.predictor = BlockPredictor(encoder.embed_dim, positions, predictor_depth, heads)
        self.masking = IJEPAMasking(
            num_targets, target_scale, target_aspect_ratio, context_scale, min_keep
        )
        self.backbone = TeacherStudentWrapper(
            encoder, True, ema_decay_start, ema_decay_end, schedule="linear"
        )
        self.embedding_source = embedding_source
        self.ijepa_loss = IJEPALoss()
