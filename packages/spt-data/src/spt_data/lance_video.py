"""Videos stored with Lance, a row per frame: decoded once, read as windows of frames.

Needs ``spt-data[lance]``, and ``spt-data[video]`` to build.
"""

from __future__ import annotations

import bisect
import importlib
import io
import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from loguru import logger
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from spt_data._draws import asked_for, copy_of
from spt_data._errors import CorruptSampleError
from spt_data._lance import (
    Table,
    check_free,
    lance,
    read_facts,
    side_file,
    write_facts,
    write_table,
)
from spt_data._modes import to_tensor
from spt_data.datasets import Dataset, OnError, Sample, Transform, reading, row_and_view
from spt_data.video import open_video

FRAMES_AT_ONCE = 64  # decoded frames that a thread holds


def build_lance_video_dataset(
    source_dir: str | Path,
    output_path: str | Path,
    *,
    quality: int = 65,
    resize: int | None = None,
    workers: int | None = None,
    glob: str = "*.mp4",
    recursive: bool = True,
    overwrite: bool = False,
    skip_corrupt: bool = True,
) -> Path:
    """Decode every video of a folder once, and store its frames as WebP.

    Beside the table stands ``<output_path>.videos.json`` with each video's ``id``, ``path``
    (relative to the folder), ``T``, ``H``, ``W`` and ``start_row``.

    Args:
        source_dir: Folder of the videos.
        output_path: Folder of the result.
        quality: Of the frames, 1 to 100.
        resize: Short side in pixels of frames that are larger; the aspect is kept.
        workers: Threads, each with a video.
        glob: Pattern of the names.
        recursive: Look into folders inside the folder too.
        overwrite: Replace what is there.
        skip_corrupt: Leave videos out that cannot be decoded, and tell which.

    Returns:
        ``output_path``.

    Raises:
        FileExistsError: If there is something and ``overwrite`` is False.
        FileNotFoundError: If no file matches.
        RuntimeError: If a video cannot be decoded and ``skip_corrupt`` is False, or none can.
    """
    lance()
    folder, path = Path(source_dir), Path(output_path)
    check_free(path, overwrite)
    files = sorted(folder.rglob(glob) if recursive else folder.glob(glob))
    if not files:
        raise FileNotFoundError(f"No file of {folder} matches `glob` = {glob!r}.")
    pa = importlib.import_module("pyarrow")  # comes with datasets
    types = {"video_id": pa.int32(), "frame_idx": pa.int32(), "bytes": pa.binary()}
    schema = pa.schema(list(types.items()))
    videos: list[dict[str, Any]] = []

    def batches() -> Iterator[Any]:
        start = 0
        for file, (frames, height, width) in _encoded(
            files, quality, resize, workers, skip_corrupt
        ):
            number, length = len(videos), len(frames)
            name = file.relative_to(folder).as_posix()
            shape = {"T": length, "H": height, "W": width}
            videos.append({"id": number, "path": name, **shape, "start_row": start})
            columns = ([number] * length, range(length), frames)
            arrays = [pa.array(c, t) for c, t in zip(columns, types.values(), strict=True)]
            yield pa.record_batch(arrays, schema=schema)
            start += length
        if not videos:
            raise RuntimeError(f"None of the {len(files)} videos of {folder} can be decoded.")

    write_table(path, batches(), schema)
    totals = {"num_videos": len(videos), "num_frames": sum(video["T"] for video in videos)}
    settings = {"encoding": "webp", "quality": quality, "resize": resize}
    write_facts(side_file(path, "videos"), {**settings, **totals, "videos": videos})
    return path


Encoded = tuple[list[bytes], int, int]


def _encoded(
    files: Sequence[Path],
    quality: int,
    resize: int | None,
    workers: int | None,
    skip_corrupt: bool,
) -> Iterator[tuple[Path, Encoded]]:
    """Files and their frames, in order; a few at a time, so that memory is bounded."""
    workers = workers or os.cpu_count() or 1

    def encode(file: Path) -> Encoded | Exception:
        try:
            return encoded_frames(file, quality, resize)
        except (RuntimeError, ValueError) as error:  # what torchcodec raises
            return error

    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(files), 2 * workers):
            part = files[start : start + 2 * workers]
            for file, result in zip(part, pool.map(encode, part), strict=True):
                if not isinstance(result, Exception):
                    yield file, result
                elif skip_corrupt:
                    logger.warning(f"Skipped {file}, which cannot be decoded: {result}")
                else:
                    raise RuntimeError(f"{file} cannot be decoded: {result}") from result


def encoded_frames(file: Path, quality: int, resize: int | None) -> Encoded:
    """All frames of a video as WebP, and their height and width.

    Raises:
        ValueError: If it has no frames.
    """
    video = open_video(file)
    encoded = []
    for start in range(0, len(video), FRAMES_AT_ONCE):
        frames = video.read(list(range(start, min(len(video), start + FRAMES_AT_ONCE))))
        if resize is not None and min(frames.shape[-2:]) > resize:
            frames = F.resize(frames, [resize], antialias=True)
        for frame in frames:
            buffer = io.BytesIO()
            F.to_pil_image(frame).save(buffer, "WEBP", quality=quality)
            encoded.append(buffer.getvalue())
    if not encoded:
        raise ValueError("it has no frames")
    return encoded, *frames.shape[-2:]


class LanceVideoSegments(Dataset):
    """Every window of every video that ``build_lance_video_dataset`` stored, in a fixed order.

    A sample holds ``video`` uint8 ``(L, C, H, W)``, ``video_idx``, ``filename``, ``start_frame``,
    ``frame_indices`` int64 ``(L,)`` and ``sample_idx``, the number of the window.

    Lance does not survive a fork: give a loader with workers ``multiprocessing_context="spawn"``.

    Args:
        lance_path: Its folder.
        window_length: Frames in a window, L.
        frame_skip: Frames left out between two of a window.
        hop_size: Frames from the start of one window to that of the next.
        min_video_frames: Leave shorter videos out; those shorter than a window always are.
        transform: Called on each sample.
        gpu_transform: Called on each batch on the device.
        on_error: ``"skip"`` leaves samples out that cannot be decoded.

    Raises:
        FileNotFoundError: If there is no side file ``<lance_path>.videos.json``.
        ValueError: If a number is out of range, or no video is as long as a window.
    """

    def __init__(
        self,
        lance_path: str | Path,
        window_length: int,
        *,
        frame_skip: int = 0,
        hop_size: int = 1,
        min_video_frames: int | None = None,
        transform: Transform | None = None,
        gpu_transform: Transform | None = None,
        on_error: OnError = "raise",
    ) -> None:
        super().__init__(transform, gpu_transform, on_error)
        limits = {"window_length": (window_length, 1), "frame_skip": (frame_skip, 0)}
        for name, (value, low) in {**limits, "hop_size": (hop_size, 1)}.items():
            if value < low:
                raise ValueError(f"`{name}` must be at least {low}, got {value}.")
        self.window_length, self.hop_size, self.stride = window_length, hop_size, frame_skip + 1
        facts = read_facts(side_file(Path(lance_path), "videos"))
        self.videos: list[dict[str, Any]] = facts["videos"]
        shortest = max(self.span, min_video_frames or 0)
        counts = [
            (video["T"] - self.span) // hop_size + 1 if video["T"] >= shortest else 0
            for video in self.videos
        ]
        self._ends = list(itertools.accumulate(counts))
        if not self._ends[-1]:
            raise ValueError(
                f"No video has {shortest} frames, which windows of {window_length} with "
                f"`frame_skip` = {frame_skip} need; the longest of {len(counts)} has "
                f"{max(video['T'] for video in self.videos)}."
            )
        sizes = {(v["H"], v["W"]) for v, count in zip(self.videos, counts, strict=True) if count}
        if len(sizes) > 1:
            logger.warning(f"The videos have {len(sizes)} sizes; resize them before collating.")
        self._table = Table(Path(lance_path))

    @property
    def span(self) -> int:
        """Frames from the first to the last of a window, both counted."""
        return (self.window_length - 1) * self.stride + 1

    @property
    def video_paths(self) -> list[str]:
        """Path of each video, relative to the folder it came from."""
        return [video["path"] for video in self.videos]

    @property
    def segment_filenames(self) -> list[str]:
        """The path of the video of each window."""
        return [self.segment_filename(window) for window in range(len(self))]

    def segment_filename(self, index: int) -> str:
        """The path of the video of a window."""
        return str(self.segment_info(index)["filename"])

    def segment_info(self, index: int) -> Sample:
        """Everything about a window except its pixels.

        Raises:
            IndexError: If there is no such window.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"Window {index} is out of range for {len(self)} windows.")
        window = index % len(self)
        video = bisect.bisect_right(self._ends, window)
        start = (window - (self._ends[video - 1] if video else 0)) * self.hop_size
        return {
            "video_idx": self.videos[video]["id"],
            "filename": self.videos[video]["path"],
            "start_frame": start,
            "frame_indices": torch.arange(start, start + self.span, self.stride),
            "sample_idx": window,
        }

    @staticmethod
    def worker_init(worker_id: int) -> None:
        """Nothing is left to do in a worker; kept for loaders that pass it."""

    def __len__(self) -> int:
        """Number of windows."""
        return self._ends[-1]

    def __getitem__(self, index: int | tuple[int, int]) -> Sample:
        """One window; a ``(window, view)`` pair also sets ``view_idx``."""
        window, extra = row_and_view(index)
        info = self.segment_info(window)
        return self._finish({**info, **extra}, self._read([info]))

    def __getitems__(self, indices: Sequence[int | tuple[int, int]]) -> list[Sample]:
        """Several windows, read together; a frame that some share is read once."""
        keys = [row_and_view(index) for index in indices]
        infos = [{**self.segment_info(window), **extra} for window, extra in keys]
        stored = iter(self._read(infos))
        try:
            samples = []
            for info, index in zip(infos, indices, strict=True):
                frames = list(itertools.islice(stored, self.window_length))
                with asked_for(info["sample_idx"], copy_of(index)):
                    samples.append(self._finish(info, frames))
            return samples
        except CorruptSampleError:
            return super().__getitems__(indices)  # one by one: names or skips the broken ones

    def _read(self, infos: Sequence[Sample]) -> list[bytes]:
        starts = [self.videos[info["video_idx"]]["start_row"] for info in infos]
        frames = [start + info["frame_indices"] for start, info in zip(starts, infos, strict=True)]
        return [row["bytes"] for row in self._table.take(torch.cat(frames).tolist(), ["bytes"])]

    def _finish(self, info: Sample, stored: Sequence[bytes]) -> Sample:
        with reading(info["sample_idx"]):
            frames = torch.stack([_decoded(data) for data in stored])
        return self.process_sample({"video": frames, **info})


def _decoded(data: bytes) -> Tensor:
    with Image.open(io.BytesIO(data)) as image:
        return to_tensor(image.convert("RGB")).as_subclass(Tensor)
