"""SALT: predict the features of a frozen teacher at hidden places.

Li et al., "Rethinking JEPA: Compute-Efficient Video SSL with Frozen Teachers", 2025.
https://arxiv.org/abs/2509.24317; the authors' code is not public. Masks, predictor and error are those
of V-JEPA, https://github.com/facebookresearch/jepa, which the paper builds on.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from spt_losses import VJEPALoss
from torch import nn

from spt_methods.backbones.predictor import truncated_init
from spt_methods.backbones.sines import fix_positions
from spt_methods.backbones.video_vit import VideoViT
from spt_methods.backbones.vit_tokens import ViTTokens
from spt_methods.backbones.wrappers import EvalOnly
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


def salt(self: Any, batch: Any, stage: Stage) -> State:
    """Predict the frozen teacher's features of hidden blocks from the student's of the rest, twice.

    Needs: ``backbone`` (a ``ViTTokens`` or a ``VideoViT``), ``teacher`` (an ``EvalOnly`` of one),
    ``predictor``, ``maskings``, ``salt_loss``.
    Reads: ``video`` ``(N, T, C, H, W)``, or any views, each with ``image`` ``(N, C, H, W)``.
    Writes: ``embedding`` ``(V * N, F)`` of the student, of what the first kind of mask shows in ``fit``, and
    ``label`` to match, if there are labels; in ``fit`` also ``predictions`` and ``targets``, each a list with
    ``(V * N, m, D)`` for each kind of mask, and ``loss``.
    """
    clips, labels = clips_of(batch)
    if stage != "fit":
        return {"embedding": self.backbone(clips).embedding, **labels}
    with torch.no_grad():
        whole = self.teacher(clips)
    hidden = predict_both(self, self.backbone, clips, whole.patches, whole.grid_size)
    state: State = {**hidden, **labels}
    state["loss"] = self.salt_loss(state["predictions"], state["targets"])
    return state


class SALT(Method):
    """SALT's second stage; evaluates the student, averaged over patches.

    The first stage, for images, is ``MAE(masking=MultiBlockMasking())``; :meth:`from_checkpoint` takes its
    encoder as the teacher. Any trained encoder will do: the paper finds small ones good enough.

    Args:
        encoder_name: The student: a timm ``VisionTransformer`` by name, or a :class:`ViTTokens` or a
            :class:`VideoViT` as a module.
        teacher: A trained :class:`ViTTokens` (or timm transformer) or :class:`VideoViT`, of any width but
            with the student's grid; frozen in place.
        num_frames: Frames of a video; ``None`` makes a named student one of images.
        tubelet_size: Frames of a tubelet.
        predictor_embed_dim: Width of the predictor.
        predictor_depth: Its blocks.
        predictor_num_heads: Its heads; those of the student if ``None``.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``in_chans``, ``optim`` and others.
            The recipe is V-JEPA's: AdamW, 6.25e-4 for a batch of 3072, decay 0.04 to 0.4.

    Raises:
        ValueError: If the teacher's grid is not the student's.

    Note:
        A named student of images has no class token, fixed sine positions and, unless ``pretrained``,
        V-JEPA's initialisation. The teacher's features are normalised without parameters, as V-JEPA's.
    """

    paper = Recipe(
        "AdamW", 6.25e-4, 0.04, batch=3072, epochs=300, warmup_epochs=40, base_batch=3072,
        weight_decay_end=0.4, start_lr=2e-4, end_lr=1e-6, options={**UNDECAYED, "gradient_clip_val": 10.0},
    )  # fmt: skip

    def __init__(
        self,
        encoder_name: str | nn.Module = "vit_large_patch16_224",
        *,
        teacher: nn.Module,
        num_frames: int | None = None,
        tubelet_size: int = 2,
        predictor_embed_dim: int = 384,
        predictor_depth: int = 12,
        predictor_num_heads: int | None = None,
        **common: Any,
    ) -> None:
        encoder, named = encoder_name, isinstance(encoder_name, str)
        if isinstance(encoder_name, str) and num_frames is not None:
            sizes = {"num_frames": num_frames, "tubelet_size": tubelet_size}
            encoder = video_encoder(encoder_name, common, **sizes)
        elif named:
            plain = {"class_token": False, "global_pool": "avg", "fc_norm": False}
            common["encoder_kwargs"] = {**plain, **(common.get("encoder_kwargs") or {})}
        super().__init__(
            salt,
            encoder,
            tokens=not isinstance(encoder, VideoViT),
            **common,
        )
        student: Any = self.backbone
        if named and not isinstance(student, VideoViT) and not common.get("pretrained", False):
            truncated_init(student)
            fix_positions(student)
        known: Any = teacher if isinstance(teacher, (ViTTokens, VideoViT)) else ViTTokens(teacher)
        if known.default_grid != student.default_grid:
            raise ValueError(
                f"`teacher` has a grid of {known.default_grid}, the student one of "
                f"{student.default_grid}: they must see the same patches."
            )
        self.teacher = EvalOnly(known)
        blocks: Any = getattr(student, "vit", student).blocks
        self.predictor = latent_predictor(
            student,
            predictor_embed_dim,
            predictor_depth,
            predictor_num_heads or blocks[0].attn.num_heads,
            known.embed_dim,
        )
        self.maskings = both_ranges()
        self.salt_loss = VJEPALoss()

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike[str],
        encoder_name: str | nn.Module = "vit_large_patch16_224",
        *,
        teacher: nn.Module,
        prefix: str = "backbone.",
        **kwargs: Any,
    ) -> SALT:
        """Fill a teacher with the encoder of a run and build the second stage on it.

        Args:
            path: A checkpoint of Lightning, or a saved ``state_dict``.
            encoder_name: The student.
            teacher: A module of the checkpoint's encoder's kind; changed in place.
            prefix: What the names of the encoder's parameters begin with there; if none does, all are
                taken as they are.
            **kwargs: Further arguments of :class:`SALT`.

        Raises:
            RuntimeError: If the names or shapes are not the teacher's.
        """
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        saved = saved.get("state_dict", saved)
        chosen = {k.removeprefix(prefix): v for k, v in saved.items() if k.startswith(prefix)}
        teacher.load_state_dict(chosen or saved)
        return cls(encoder_name, teacher=teacher, **kwargs)
