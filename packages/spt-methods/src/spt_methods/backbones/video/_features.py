"""What the encoders of videos return, and what they check."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor

Pool = Literal["avg", ""]


class VideoFeatures(NamedTuple):
    """Features of videos.

    Attributes:
        feature_map: Shape ``(B, D, T', H', W')``.
        pooled: Their mean over time and space, ``(B, D)``; ``None`` with ``global_pool=""``.
        tokens: One vector a frame, ``(B, T, D)``, of encoders that have them.
        decouple_loss: Scalar of PredRNN-v2, if asked for.
    """

    feature_map: Tensor
    pooled: Tensor | None
    tokens: Tensor | None = None
    decouple_loss: Tensor | None = None


def check_pool(global_pool: str) -> None:
    """Refuse a pooling that is not known.

    Raises:
        ValueError: If it is neither ``"avg"`` nor ``""``.
    """
    if global_pool not in ("avg", ""):
        raise ValueError(f'`global_pool` must be "avg" or "", got {global_pool!r}.')


def check_video(x: Tensor, channels: int, caller: str) -> None:
    """Refuse what is no batch of videos.

    Raises:
        ValueError: If it is not ``(B, channels, T, H, W)``.
    """
    if x.ndim != 5 or x.shape[1] != channels or 0 in x.shape:
        raise ValueError(
            f"{caller} needs videos (B, {channels}, T, H, W), got shape {tuple(x.shape)}."
        )


def mean_of_map(feature_map: Tensor, global_pool: str) -> Tensor | None:
    """The mean over time and space, or nothing."""
    return feature_map.mean((2, 3, 4)) if global_pool == "avg" else None
