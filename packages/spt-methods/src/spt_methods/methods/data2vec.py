"""data2vec: predict the teacher's contextual features at hidden places.

Baevski et al., "data2vec: A General Framework for Self-supervised Learning in Speech, Vision and
Language", ICML 2022, eq. 4. https://arxiv.org/abs/2202.03555; official code
https://github.com/facebookresearch/data2vec_vision.
"""

from __future__ import annotations

from typing import Any

import torch
from spt_losses import Data2VecLoss, data2vec_targets
from torch import nn

from spt_methods.backbones.teacher import TeacherStudentWrapper
from spt_methods.masking.blocks import BlockMasking, smallest_block
from spt_methods.masking.places import hide
from spt_methods.methods._groups import UNDECAYED_TOKENS
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.views import Stage, State, images_of, labels_of, views_of


def data2vec(self: Any, batch: Any, stage: Stage) -> State:
    """Regress the mean of the teacher's last blocks at hidden patches.

    Needs: ``backbone`` (a ``TeacherStudentWrapper`` of a ``ViTTokens`` with a mask token), ``regressor``,
    ``data2vec_loss``, ``masking``, ``top_k_blocks``.
    Reads: any views, each with ``image`` ``(N, C, H, W)``.
    Writes: ``embedding`` ``(V * N, F)`` of the student, of the masked image in ``fit``, and ``label`` to match,
    if there are labels; in ``fit`` also ``predictions`` and ``target`` ``(M, D)`` at the hidden places,
    ``mask`` ``(V * N, P)`` and ``loss``.
    """
    views = views_of(batch)
    images = images_of(views)
    if stage != "fit":
        tokens = self.backbone.forward_student(images)
        return {"embedding": tokens.embedding, **labels_of(batch, views)}
    teacher = self.backbone.teacher
    hidden = hide(self.masking, len(images), teacher.grid_of(images), images.device)
    student = self.backbone.forward_student(images, mask=hidden.mask)
    state: State = {"embedding": student.embedding, "mask": hidden.mask, **labels_of(batch, views)}
    with torch.no_grad():
        outputs = teacher.block_outputs(images)[-self.top_k_blocks :]
    patches = [tokens[:, teacher.num_prefix_tokens :] for tokens in outputs]
    state["target"] = hidden.of(data2vec_targets(patches, top_k=self.top_k_blocks))
    state["predictions"] = self.regressor(hidden.of(student.patches))
    state["loss"] = self.data2vec_loss(state["predictions"], state["target"])
    return state


class Data2Vec(Method):
    """data2vec on a timm vision transformer; evaluates the student.

    Args:
        encoder_name: A timm transformer, by name or as a module; ``beit_*`` models have relative position
            biases, as the paper's, and no absolute positions.
        top_k_blocks: Blocks whose outputs are averaged.
        mask_ratio: Share of hidden patches.
        beta: Where the error turns from squared to absolute.
        ema_decay_start: tau at the first step.
        ema_decay_end: tau at the last step.
        drop_path_rate: Stochastic depth of the student.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``in_chans``, ``optim`` and others.
            The recipe is AdamW at 2e-3 for a batch of 2048, decay 0.05, gradients clipped at norm 3.

    Note:
        tau rises over the whole run; the official schedule reaches its end earlier, at a step that
        differs between the released models.
        Each block of ``beit_*`` has biases of its own, as the official code when it fine-tunes; when it
        pretrains, all share one table (``encoder_kwargs={"use_rel_pos_bias": False,
        "use_shared_rel_pos_bias": True}``).
    """

    paper = Recipe(
        "AdamW", 2e-3, 0.05, batch=2048, epochs=800, warmup_epochs=10, base_batch=2048,
        end_lr=1e-5, augmentation="beit", options={**UNDECAYED_TOKENS, "gradient_clip_val": 3.0},
    )  # fmt: skip

    def __init__(
        self,
        encoder_name: str | nn.Module = "beit_base_patch16_224",
        top_k_blocks: int = 6,
        mask_ratio: float = 120 / 196,
        beta: float = 2.0,
        ema_decay_start: float = 0.999,
        ema_decay_end: float = 0.9998,
        drop_path_rate: float = 0.25,
        **common: Any,
    ) -> None:
        named = isinstance(encoder_name, str)
        common["encoder_kwargs"] = {
            **({"init_values": 1e-4} if named else {}),  # LayerScale
            **(common.get("encoder_kwargs") or {}),
        }
        super().__init__(
            data2vec,
            encoder_name,
            tokens="mask",
            drop_path_rate=drop_path_rate if named else 0.0,
            **common,
        )
        encoder: Any = self.backbone
        if not 1 <= top_k_blocks <= len(encoder.vit.blocks):
            raise ValueError(
                f"`top_k_blocks` must be between 1 and the {len(encoder.vit.blocks)} blocks of the "
                f"encoder, got {top_k_blocks}."
            )
        self.top_k_blocks = top_k_blocks
        self.masking = BlockMasking(mask_ratio, smallest_block(encoder.default_grid))
        self.regressor = nn.Linear(encoder.embed_dim, encoder.embed_dim)
        self.backbone = TeacherStudentWrapper(
            encoder, True, ema_decay_start, ema_decay_end, schedule="linear"
        )
        self.data2vec_loss = Data2VecLoss(beta)
