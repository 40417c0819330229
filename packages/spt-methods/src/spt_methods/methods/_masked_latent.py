"""What V-JEPA and SALT share: images or videos, two kinds of masks, and a prediction for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from spt_losses import ijepa_targets
from torch import Tensor, nn

from spt_methods.backbones.pos_embed import get_2d_sincos_pos_embed, get_3d_sincos_pos_embed
from spt_methods.backbones.predictor import BlockPredictor
from spt_methods.backbones.video_vit import VideoViT
from spt_methods.masking.tubes import TubeMasking
from spt_methods.views import State, images_of, labels_of, views_of

SHORT_RANGE = {"num_blocks": 8, "spatial_scale": (0.15, 0.15)}
LONG_RANGE = {"num_blocks": 2, "spatial_scale": (0.7, 0.7)}


def clips_of(batch: Any) -> tuple[Tensor, State]:
    """Videos ``(M, C, T, H, W)`` or images ``(M, C, H, W)`` of a batch, and their labels.

    Args:
        batch: With ``video`` ``(M, T, C, H, W)``, frame by frame as ``spt_data`` makes them; or any views
            with ``image``.
    """
    if isinstance(batch, Mapping) and "video" in batch:
        return batch["video"].transpose(1, 2), labels_of(batch, [batch])
    views = views_of(batch)
    return images_of(views), labels_of(batch, views)


def video_encoder(name: str, common: dict[str, Any], **settings: Any) -> VideoViT:
    """A :class:`VideoViT`; takes what is about the encoder out of a method's ``common`` settings."""
    if common.pop("pretrained", False):
        raise ValueError(
            "timm has no pretrained video transformers: leave out `pretrained`, or give a VideoViT "
            "with its weights as the encoder."
        )
    return VideoViT(
        name,
        image_size=common.pop("image_size", None) or 224,
        in_chans=common.pop("in_chans", 3),
        drop_path_rate=common.pop("drop_path_rate", 0.0),
        **settings,
        **(common.pop("encoder_kwargs", None) or {}),
    )


def latent_predictor(encoder: Any, width: int, depth: int, heads: int, out_dim: int) -> nn.Module:
    """A predictor at the places of the encoder's grid, with a mask token for each kind of mask."""
    grid = encoder.default_grid
    if isinstance(encoder, VideoViT):
        positions = get_3d_sincos_pos_embed(width, grid, uniform=encoder.uniform_power)
    else:
        positions = get_2d_sincos_pos_embed(width, grid)
    predictor = BlockPredictor(
        encoder.embed_dim, positions, depth, heads, out_dim=out_dim, num_mask_tokens=2
    )
    nn.init.zeros_(predictor.mask_token)
    return predictor


def both_ranges() -> nn.ModuleList:
    """V-JEPA's two kinds of masks: eight small blocks, and two large ones."""
    return nn.ModuleList([TubeMasking(**SHORT_RANGE), TubeMasking(**LONG_RANGE, seed=1)])  # type: ignore[arg-type]


def predict_both(
    self: Any, student: Callable[..., Any], clips: Tensor, features: Tensor, grid: tuple[int, ...]
) -> State:
    """Predictions and targets of each kind of mask, lists of ``(M, m, D)``; the first context's embedding.

    Args:
        self: With ``maskings`` and ``predictor``.
        student: Encodes the context: from clips and ``ids_keep`` to something with ``patches``.
        clips: Images or videos.
        features: The teacher's patches of whole clips, ``(M, N, D)``; normalised here without parameters.
        grid: Of the clips.
    """
    state: State = {"predictions": [], "targets": []}
    for which, masking in enumerate(self.maskings):
        context_idx, target_idx = masking(len(clips), grid, clips.device)
        places = target_idx.unsqueeze(0)
        context = student(clips, ids_keep=context_idx)
        state.setdefault("embedding", context.embedding)
        state["predictions"].append(self.predictor(context.patches, context_idx, places, which))
        state["targets"].append(ijepa_targets(features, places))
    return state
