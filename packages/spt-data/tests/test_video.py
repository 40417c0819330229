"""Frames of videos: (L, C, H, W), decoded only where needed."""

import shutil
import subprocess

import pytest
import torch
from spt_data import collate, transforms


def frames(n=12):
    return torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 3, 8, 10).clone()


def test_a_run_of_frames_and_where_it_began():
    clip = transforms.RandomContiguousTemporalSampler("video", "clip", 4, frame_subsampling=2)
    starts = set()
    for _ in range(60):
        out = clip({"video": frames()})
        start = out["RandomContiguousTemporalSampler"]
        assert out["clip"][:, 0, 0, 0].tolist() == list(range(start, start + 8, 2))
        starts.add(start)
    assert starts == set(range(6))
    batch = collate([clip({"video": frames()}) for _ in range(2)])
    assert batch["clip"].shape == (2, 4, 3, 8, 10)
    with pytest.raises(ValueError, match="the video has 5 frames, but `num_frames` = 4 .* span 7"):
        clip({"video": frames(5)})


def test_evenly_spaced_frames():
    few = transforms.UniformTemporalSubsample(4)
    assert few({"video": frames(10)})["video"][:, 0, 0, 0].tolist() == [0, 3, 6, 9]
    assert few({"video": frames(2)})["video"].shape == (4, 3, 8, 10)
    swapped = transforms.UniformTemporalSubsample(3, temporal_dim=-3)
    assert swapped({"video": frames(9).transpose(0, 1)})["video"].shape == (3, 3, 8, 10)
    chain = transforms.Compose(few, transforms.Resize((4, 5), source="video", target="video"))
    assert chain({"video": frames()})["video"].shape == (4, 3, 4, 5)


def test_mistakes_are_named():
    few = transforms.UniformTemporalSubsample(4)
    with pytest.raises(ValueError, match="`num_samples` must be positive, got 0"):
        transforms.UniformTemporalSubsample(0)
    with pytest.raises(TypeError, match="a video is a tensor .* got int"):
        few({"video": 3})
    with pytest.raises(ValueError, match="`frame_subsampling` must be positive"):
        transforms.RandomContiguousTemporalSampler("video", "clip", 4, 0)


def test_files_are_decoded_by_torchcodec(tmp_path):
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        pytest.skip("torchcodec or FFmpeg is not installed")
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg, which makes the file, is not installed")
    path = tmp_path / "ramp.mp4"
    raw = (20 * frames()).permute(0, 2, 3, 1).repeat_interleave(4, 1).repeat_interleave(4, 2)
    command = ["ffmpeg", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "40x32"]
    command += ["-r", "10", "-i", "-", "-pix_fmt", "yuv420p", "-qscale", "1", str(path)]
    subprocess.run(command, input=raw.contiguous().numpy().tobytes(), check=True)
    clip = transforms.RandomContiguousTemporalSampler("video", "clip", 3)
    for source in (str(path), path, path.read_bytes()):
        out = clip({"video": source})
        start = out["RandomContiguousTemporalSampler"]
        assert out["clip"].shape == (3, 3, 32, 40)
        levels = out["clip"].float().mean((1, 2, 3))
        expected = 20.0 * torch.arange(start, start + 3)
        torch.testing.assert_close(levels, expected, atol=6, rtol=0)
    assert transforms.UniformTemporalSubsample(4)({"video": path})["video"].shape == (4, 3, 32, 40)
