"""Pictures: each is drawn from real values, in every format, and says what is wrong."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from click.testing import CliRunner
from matplotlib.image import imread
from spt_registry import RunWriter
from stable_pretraining import pictures
from stable_pretraining.cli import main
from stable_pretraining.pictures.curves import USUAL, chosen
from stable_pretraining.pictures.neighbours import nearest
from stable_pretraining.pictures.views import views_of

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "simclr_cifar10_config.yaml"
HISTORIES = {
    "first": pd.DataFrame({"step": [0, 1, 2], "fit/loss": [3.0, 2.0, 1.0], "eval/knn_acc": [np.nan, 0.2, 0.5]}),
    "second": pd.DataFrame({"step": [0, 1], "fit/loss": [4.0, 2.5], "lr": [0.1, 0.1]}),
}  # fmt: skip


def record(cache, values, run_id):
    folder = cache / "runs" / run_id
    with RunWriter(folder, run_id=run_id) as writer:
        for step, value in enumerate(values):
            writer.log_metrics({"fit/loss": value, "eval/knn_acc": 1 - value}, step=step)
    return folder


@pytest.mark.parametrize("ending", ["png", "svg", "pdf", "html"])
def test_curves_are_drawn_in_each_format(tmp_path, ending):
    path = pictures.plot_runs(HISTORIES, tmp_path / f"runs.{ending}")
    content = path.read_bytes()
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF", "html": b"<!doctype"}[ending]
    assert content.startswith(start)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    if ending == "html":
        assert b"<h1>first, second</h1>" in content
        assert b"http" not in content.replace(b"http://www.w3.org", b"").replace(
            b"http://purl.org", b""
        ).replace(b"http://creativecommons.org", b"").replace(b"https://matplotlib.org", b"")


def test_the_usual_metrics_are_found_by_pattern():
    frames = HISTORIES.values()
    assert chosen(frames, USUAL) == ["fit/loss", "eval/knn_acc"]
    assert chosen(frames, ["lr"]) == ["lr"]
    both = [pd.DataFrame({"step": [0], "fit/loss": [1.0], "fit/loss_step": [1.0]})]
    assert chosen(both, USUAL) == ["fit/loss"]
    assert chosen(both, ["fit/*"]) == ["fit/loss", "fit/loss_step"]


def test_what_cannot_be_drawn_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"No run has a metric like \['acc'\]; they have"):
        pictures.plot_runs(HISTORIES, tmp_path / "a.png", ["acc"])
    with pytest.raises(ValueError, match=r"'runs.gif' is no format; give one of .png, .svg"):
        pictures.plot_runs(HISTORIES, "runs.gif")
    with pytest.raises(ValueError, match=r"neither `views` nor named crops"):
        pictures.draw_views({"label": torch.zeros(2)}, tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"features \(N, D\) with N > 2, got \(2, 3\)"):
        pictures.draw_embedding(torch.zeros(2, 3), tmp_path / "a.png")
    with pytest.raises(TypeError, match="Linear holds no timm VisionTransformer"):
        pictures.attention_maps(torch.nn.Linear(1, 1), torch.zeros(1, 3, 32, 32))
    assert list(tmp_path.iterdir()) == []


def test_views_are_found_in_every_kind_of_batch():
    image = torch.rand(2, 3, 8, 8)
    assert list(views_of({"views": [{"image": image}] * 2, "label": 0})) == ["view 0", "view 1"]
    crops = {"global_0": {"image": image}, "local_0": {"image": image}}
    assert list(views_of(crops)) == ["global_0", "local_0"]
    assert list(views_of({"image": image, "label": torch.zeros(2)})) == ["image"]


def test_a_sheet_of_views_shows_the_images(tmp_path):
    image = torch.zeros(1, 3, 8, 8)
    image[:, 0] = 1.0  # red
    drawn = imread(pictures.draw_views({"image": image}, tmp_path / "views.png"))[..., :3]
    red = (drawn == np.array([1.0, 0.0, 0.0], dtype=np.float32)).all(-1)
    assert red.mean() > 0.4


def test_neighbours_are_the_most_similar_rows(tmp_path):
    bank = torch.eye(4)
    queries = torch.tensor([[0.0, 0.1, 1.0, 0.0], [1.0, 0.0, 0.0, 0.5]])
    assert nearest((bank, queries), [0, 1], 2) == [[2, 1], [0, 3]]
    images, labels = (
        (torch.rand(4, 1, 5, 5), torch.rand(2, 1, 5, 5)),
        (torch.arange(4), torch.tensor([2, 3])),
    )
    path = pictures.draw_neighbours(
        (bank, queries), images, tmp_path / "near.png", labels=labels, k=2
    )
    drawn = imread(path)[..., :3]
    for colour in ([0x16, 0xA3, 0x4A], [0xDC, 0x26, 0x26]):  # a right and a wrong one
        assert (np.abs(drawn * 255 - np.array(colour)).max(-1) < 1).any()


def test_a_map_keeps_separate_what_is_separate(tmp_path):
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(2, 16, generator=generator).repeat_interleave(20, 0)
    features = centres + 0.01 * torch.randn(40, 16, generator=generator)
    labels = torch.arange(2).repeat_interleave(20)
    with_labels = pictures.draw_embedding(features, tmp_path / "map.png", labels=labels)
    again = pictures.draw_embedding(features, tmp_path / "again.png", labels=labels)
    assert with_labels.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_base_patch16_siglip_gap_224"])
def test_attention_is_the_softmax_of_the_last_block(name):
    small = {"depth": 2, "embed_dim": 24, "num_heads": 3, "img_size": 48}
    vit = timm.create_model(name, num_classes=0, **small)
    images = torch.rand(2, 3, 48, 48)
    vit.train()
    maps = pictures.attention_maps(torch.nn.ModuleDict({"backbone": vit}), images)
    assert vit.training
    assert vit.blocks[-1].attn.fused_attn == vit.blocks[0].attn.fused_attn
    vit.eval()
    given = []
    vit.blocks[-1].attn.register_forward_pre_hook(lambda _, x: given.append(x[0]))
    with torch.no_grad():
        vit.forward_features(images)
        (x,), attention = given, vit.blocks[-1].attn
        q, k, _ = attention.qkv(x).unflatten(2, (3, 3, 8)).permute(2, 0, 3, 1, 4)
        whole = (q @ k.mT / 8**0.5).softmax(-1)
    expected = whole[:, :, 0, 1:] if vit.has_class_token else whole.mean(2)
    torch.testing.assert_close(maps.flatten(2), expected, rtol=1e-4, atol=1e-6)
    assert maps.shape == (2, 3, 3, 3)


def test_attention_is_drawn(tmp_path):
    vit = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32)
    assert pictures.draw_attention(vit, torch.rand(2, 3, 32, 32), tmp_path / "a.svg").stat().st_size


def test_plot_draws_runs_by_id_and_by_folder(tmp_path):
    record(tmp_path, [0.9, 0.5], "aaaa")
    folder = record(tmp_path, [0.8, 0.4], "bbbb")
    out = tmp_path / "out.html"
    arguments = ["plot", "aa", str(folder), "--cache-dir", str(tmp_path), "--out", str(out)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert result.output.strip() == str(out)
    assert "<h1>aaaa, bbbb</h1>" in out.read_text()
    result = CliRunner().invoke(main, [*arguments, "-m", "acc"])
    assert result.exit_code == 1
    assert "No run has a metric like" in result.output
    result = CliRunner().invoke(main, ["plot", "zz", "--cache-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert "zz" in result.output


def test_views_draws_what_a_configuration_trains_on(tmp_path):
    command = [
        str(Path(sys.executable).with_name("spt")), "views", str(EXAMPLE), "dataset=sample", "batch_size=4",
        "--rows", "3",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "views.png"
    assert [entry.name for entry in tmp_path.iterdir()] == ["views.png"]
    height, width = imread(tmp_path / "views.png").shape[:2]
    assert height > width  # three rows of two views
