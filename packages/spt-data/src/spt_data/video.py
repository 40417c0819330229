"""Frames of videos, as tensors (L, C, H, W); files are decoded by torchcodec."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spt_data._base import RecordedTransform, SampleTransform
from spt_data._keys import Path as KeyPath


class _Frames:
    """Frames that are there already, read as a decoder is."""

    def __init__(self, frames: Tensor) -> None:
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, numbers: list[int]) -> Tensor:
        """The frames with these numbers."""
        return self.frames[numbers]


class _File:
    """A video file or its bytes."""

    def __init__(self, source: Any) -> None:
        self.decoder = _decoders().VideoDecoder(source)

    def __len__(self) -> int:
        return len(self.decoder)

    def read(self, numbers: list[int]) -> Tensor:
        """The frames with these numbers."""
        frames: Tensor = self.decoder.get_frames_at(indices=numbers).data
        return frames


def _decoders() -> Any:
    try:
        return importlib.import_module("torchcodec.decoders")
    except (ImportError, OSError, RuntimeError) as error:  # the last two: no FFmpeg libraries
        raise ImportError(
            "Decoding a video needs torchcodec and FFmpeg's shared libraries, and they cannot be "
            f'loaded ({type(error).__name__}): pip install "spt-data[video]". Frames that are '
            "decoded already, (L, C, H, W), need nothing."
        ) from error


def open_video(value: Any) -> _Frames | _File:
    """A video whose frames can be read by number.

    Args:
        value: Frames ``(L, C, H, W)``, a path, or the bytes of a file.

    Raises:
        ImportError: If a file is to be decoded and torchcodec is not installed.
        TypeError: If it is none of them.
        ValueError: If a tensor has not four dimensions.
    """
    if isinstance(value, Tensor):
        if value.ndim != 4:
            raise ValueError(f"a video has shape (L, C, H, W), got {tuple(value.shape)}")
        return _Frames(value)
    if isinstance(value, (str, Path)):
        return _File(str(value))
    if isinstance(value, bytes):
        return _File(value)
    raise TypeError(
        f"a video is a tensor (L, C, H, W), a path or bytes, got {type(value).__name__}"
    )


class RandomContiguousTemporalSampler(RecordedTransform):
    """A run of frames from a random place of a video; only those frames are decoded.

    Record: int, the number of the first frame.

    Args:
        source: Key of frames ``(L, C, H, W)``, of a path or of the bytes of a file.
        target: Key of the frames, ``(num_frames, C, H, W)``.
        num_frames: Frames to keep.
        frame_subsampling: Keep each ``frame_subsampling``-th frame.

    Raises:
        ValueError: If a number is not positive; when called, if the video is too short.
    """

    def __init__(
        self, source: KeyPath, target: KeyPath, num_frames: int, frame_subsampling: int = 1
    ) -> None:
        super().__init__(source=source, target=target)
        for name, value in (("num_frames", num_frames), ("frame_subsampling", frame_subsampling)):
            if value < 1:
                raise ValueError(f"`{name}` must be positive, got {value}.")
        self.num_frames = num_frames
        self.frame_subsampling = frame_subsampling

    def check(self, value: Any) -> None:
        """The kinds are looked at when the video is opened."""

    def draw(self, values: list[Any]) -> dict[str, Any]:
        """Open the videos, and draw one place for all."""
        videos = [open_video(value) for value in values]
        length = min(map(len, videos))
        span = (self.num_frames - 1) * self.frame_subsampling + 1
        if length < span:
            raise ValueError(
                f"the video has {length} frames, but `num_frames` = {self.num_frames} at "
                f"`frame_subsampling` = {self.frame_subsampling} span {span}"
            )
        start = int(torch.randint(length - span + 1, ()))
        videos_of = {id(value): video for value, video in zip(values, videos, strict=True)}
        return {"start": start, "span": span, "videos": videos_of}

    def act(self, value: Any, params: dict[str, Any]) -> Tensor:
        """Read the frames."""
        start, video = params["start"], params["videos"][id(value)]
        numbers = range(start, start + params["span"], self.frame_subsampling)
        frames: Tensor = video.read(list(numbers))
        return frames

    def record(self, params: dict[str, Any]) -> int:
        """The first frame."""
        return int(params["start"])

    def bypass(self) -> int:
        """The first of all frames."""
        return 0


class UniformTemporalSubsample(SampleTransform):
    """Evenly spaced frames, the first and the last among them; short videos repeat some.

    Args:
        num_samples: Frames to keep.
        temporal_dim: Dimension of the frames; -4 in ``(L, C, H, W)``.
        source: Key of the frames, of a path or of the bytes of a file.
        target: Key of the frames that are kept.

    Raises:
        ValueError: If ``num_samples`` is not positive.
    """

    def __init__(
        self,
        num_samples: int,
        temporal_dim: int = -4,
        source: KeyPath = "video",
        target: KeyPath = "video",
    ) -> None:
        super().__init__(source, target)
        if num_samples < 1:
            raise ValueError(f"`num_samples` must be positive, got {num_samples}.")
        self.num_samples = num_samples
        self.temporal_dim = temporal_dim

    def apply(self, value: Any) -> Tensor:
        """Choose the frames."""
        if isinstance(value, Tensor):
            numbers = self._numbers(value.shape[self.temporal_dim])
            return value.index_select(self.temporal_dim, torch.tensor(numbers))
        video = open_video(value)
        return video.read(self._numbers(len(video)))

    def _numbers(self, length: int) -> list[int]:
        places: list[int] = torch.linspace(0, length - 1, self.num_samples).long().tolist()
        return places
