"""Videos stored with Lance: a row per frame, read as windows."""

import pickle
import shutil
import subprocess

import pytest
import torch
from spt_data import Loader, transforms
from spt_data.lance_video import LanceVideoSegments, build_lance_video_dataset

pytest.importorskip("lance")
try:
    import torchcodec.decoders  # noqa: F401
except (ImportError, OSError, RuntimeError):
    pytest.skip("torchcodec or FFmpeg is not installed", allow_module_level=True)
if shutil.which("ffmpeg") is None:
    pytest.skip("ffmpeg, which makes the files, is not installed", allow_module_level=True)


def write_video(path, length, first, height=32):
    """Frames of one level each: ``first``, ``first + 10``, ..."""
    levels = first + 10 * torch.arange(length, dtype=torch.uint8)
    raw = levels[:, None, None, None].expand(length, height, 48, 3)
    command = ["ffmpeg", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    command += ["-s", f"48x{height}", "-r", "10", "-i", "-", "-pix_fmt", "yuv420p"]
    subprocess.run([*command, str(path)], input=raw.contiguous().numpy().tobytes(), check=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    (folder / "sub").mkdir()
    write_video(folder / "a.mp4", 9, first=10)
    write_video(folder / "sub" / "b.mp4", 6, first=100)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def stored(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("lance") / "set"
    return build_lance_video_dataset(folder, path, resize=16, workers=2)


def levels(sample):
    return sample["video"].float().mean((1, 2, 3))


def test_every_window_comes_once_in_order(stored):
    dataset = LanceVideoSegments(stored, 3, frame_skip=1, hop_size=2)  # spans 5 frames
    assert dataset.video_paths == ["a.mp4", "sub/b.mp4"]
    starts = [(s["video_idx"], s["start_frame"]) for s in map(dataset.segment_info, range(4))]
    assert starts == [(0, 0), (0, 2), (0, 4), (1, 0)]
    assert dataset.segment_filenames == ["a.mp4"] * 3 + ["sub/b.mp4"]
    for window, expected in ((1, [30.0, 50.0, 70.0]), (-1, [100.0, 120.0, 140.0])):
        sample = dataset[window]
        assert (sample["video"].shape, sample["video"].dtype) == ((3, 3, 16, 24), torch.uint8)
        assert sample["sample_idx"] == window % 4
        torch.testing.assert_close(levels(sample), torch.tensor(expected), atol=5, rtol=0)
    assert dataset[1]["frame_indices"].tolist() == [2, 4, 6]


def test_short_videos_are_left_out(stored):
    assert len(LanceVideoSegments(stored, 7)) == 3
    assert len(LanceVideoSegments(stored, 2, min_video_frames=8)) == 8


def test_windows_read_together_equal_single_ones_and_collate(stored):
    small = transforms.Resize((8, 12), source="video", target="video")
    dataset = LanceVideoSegments(stored, 4, transform=small)
    for sample, window in zip(dataset.__getitems__([5, 4, (5, 1)]), (5, 4, 5), strict=True):
        assert torch.equal(sample["video"], dataset[window]["video"])
    assert dataset.__getitems__([(5, 1)])[0]["view_idx"] == 1
    copied = pickle.loads(pickle.dumps(dataset))  # as it goes to a worker
    assert copied._table._handles == {}
    batch = next(iter(Loader(copied, batch_size=3)))
    assert batch["video"].shape == (3, 4, 3, 8, 12)
    assert batch["frame_indices"].tolist() == [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5]]


def test_mistakes_are_named(folder, stored, tmp_path):
    with pytest.raises(RuntimeError, match=r"broken.mp4 cannot be decoded"):
        build_lance_video_dataset(folder, tmp_path / "a", skip_corrupt=False)
    with pytest.raises(RuntimeError, match="None of the 1 videos .* can be decoded"):
        build_lance_video_dataset(folder, tmp_path / "a", glob="broken*")
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError, match=r"matches `glob` = '\*.avi'"):
        build_lance_video_dataset(folder, tmp_path / "a", glob="*.avi")
    with pytest.raises(FileExistsError, match="use overwrite=True"):
        build_lance_video_dataset(folder, stored)
    with pytest.raises(FileNotFoundError, match=r"videos.json is missing"):
        LanceVideoSegments(tmp_path / "b", 2)
    with pytest.raises(ValueError, match="`hop_size` must be at least 1, got 0"):
        LanceVideoSegments(stored, 2, hop_size=0)
    with pytest.raises(ValueError, match="No video has 10 frames, .* the longest of 2 has 9"):
        LanceVideoSegments(stored, 10)
    with pytest.raises(IndexError, match="Window 8 is out of range for 8 windows"):
        LanceVideoSegments(stored, 2, min_video_frames=8).segment_info(8)
