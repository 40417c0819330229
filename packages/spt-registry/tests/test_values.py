"""What becomes of every kind of value, and that logging costs the step little."""

import csv
import enum
import json
import math
import os
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import yaml
from spt_registry import RunWriter, _media
from spt_registry._media import array_to_png, folder_name
from spt_registry.run.masking import masked


class Colour(enum.Enum):
    RED = "red"


class Tensorlike:
    """A tensor's interface: shape, dtype, item, tolist."""

    def __init__(self, value):
        self.value = np.asarray(value)
        self.shape, self.dtype = self.value.shape, self.value.dtype

    def item(self):
        return self.value.item()

    def tolist(self):
        return self.value.tolist()


def sidecar(folder):
    return json.loads((folder / "sidecar.json").read_text(), parse_constant=pytest.fail)


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (np.float64(0.25), 0.25),
        (np.int32(7), 7),
        (np.bool_(True), True),
        (np.arange(3), [0, 1, 2]),
        (np.zeros((50, 50)), "ndarray of shape (50, 50), float64"),
        (Tensorlike(1.5), 1.5),
        (Path("/a/b"), "/a/b"),
        (Colour.RED, "red"),
        ({"b", "a"}, ["a", "b"]),
        (None, None),
        (2**80, 2**80),
        (b"raw", "b'raw'"),
        ("Grüße \U0001f600 \x00", "Grüße \U0001f600 \x00"),
        ("lone \ud800", "lone \\ud800"),
        ("x" * 1_000_001, "x" * 999_950 + "... (1000001 characters)"),
        (len, "<built-in function len>"),
    ],
)
def test_a_hyper_parameter_of_any_kind(tmp_path, given, kept):
    with RunWriter(tmp_path, hparams={"key": given}):
        pass
    found = sidecar(tmp_path)["hparams"]
    values = list(found.values())
    assert values == [kept]
    text = yaml.safe_load((tmp_path / "hparams.yaml").read_text())
    assert text == found


def test_keys_of_any_kind_and_nesting(tmp_path):
    deep = node = {}
    for _ in range(200):
        node["a"] = {}
        node = node["a"]
    circle = {}
    circle["me"] = circle
    hparams = {1: {None: 2.5, Colour.RED: [1, {"x": ()}]}, (1, 2): {}, "a.b": 1, "deep": deep}
    with RunWriter(tmp_path, hparams={**hparams, "circle": circle}, config=circle):
        pass
    found = sidecar(tmp_path)["hparams"]
    assert found["1.None"] == 2.5
    assert (found["1.red.0"], found["1.red.1.x"], found["(1, 2)"], found["a.b"]) == (1, [], {}, 1)
    assert any(key.startswith("circle.me.me") for key in found)


@pytest.mark.parametrize(
    ("given", "cell"),
    [
        (True, "1.0"),
        (np.float32(0.5), "0.5"),
        (np.int64(3), "3"),
        (Tensorlike([2.5]), "2.5"),
        (Fraction(1, 4), "0.25"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (1e-300, "1e-300"),
    ],
)
def test_a_metric_of_any_kind_of_number(tmp_path, given, cell):
    with RunWriter(tmp_path) as run:
        run.log_metrics({"m": given})
    assert rows(tmp_path) == [{"step": "0", "m": cell}]
    kept = sidecar(tmp_path)["summary"]["m"]
    assert kept == float(cell) if math.isfinite(float(cell)) else kept == cell


@pytest.mark.parametrize("given", ["text", None, [1.0], {"a": 1}, 1j])
def test_a_metric_that_is_no_number_is_refused(tmp_path, given):
    with RunWriter(tmp_path) as run, pytest.raises(TypeError, match="metric 'm' must be a number"):
        run.log_metrics({"m": given})
    with RunWriter(tmp_path) as run, pytest.raises(TypeError, match=r"shape \(2,\)"):
        run.log_metrics({"m": np.ones(2)})


def test_no_secret_reaches_a_file(tmp_path):
    hub = {"api_key": "k-1", "keys": {"private_key": ["k-1", "k-1"]}, "num_tokens": 7}
    hparams = {"hub": hub, "tokenizer": "bert", "url": "https://me:k-1@host/x", "password": ""}
    with RunWriter(tmp_path, hparams=hparams, config={"wandb": {"WANDB_API_KEY": "k-1"}}) as run:
        run.log_hyperparams({"hf_token": "k-1", "lr": 0.1})
    found = sidecar(tmp_path)
    assert found["hparams"] == {
        "hub.api_key": "***", "hub.keys.private_key.0": "***", "hub.keys.private_key.1": "***",
        "hub.num_tokens": 7, "tokenizer": "bert", "url": "https://***@host/x", "password": "",
        "hf_token": "***", "lr": 0.1,
    }  # fmt: skip
    assert found["config"] == {"wandb": {"WANDB_API_KEY": "***"}}
    assert not any("k-1" in path.read_text() for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    ["wandb_key", "passphrase", "Authorization", "accessToken", "auth_tokens", "secrets", "passwords", "ssh-key", "apiKeys"],
)  # fmt: skip
def test_a_name_of_a_secret(name):
    assert masked({name: ["k-1"], "x": {name: "k-1"}}) == {name: ["***"], "x": {name: "***"}}


@pytest.mark.parametrize(
    "name", ["key", "image_key", "tokens", "special_tokens", "tokenizer", "author"]
)
def test_a_name_of_the_field_that_is_no_secret(name):
    assert masked({name: "image"}) == {name: "image"}


def test_names_of_metrics(tmp_path):
    with RunWriter(tmp_path) as run:
        run.log_metrics({"a,b": 1, 'q"': 2, "two\nlines": 3, "ü": 4, 5: 5, "\ud800": 6})
        run.log_metrics({"late": 7})
    (first, second) = rows(tmp_path)
    assert list(first) == ["step", "a,b", 'q"', "two lines", "ü", "5", "\\ud800", "late"]
    assert list(first.values()) == ["0", "1", "2", "3", "4", "5", "6", ""]
    assert second["late"] == "7"


def test_the_summary_ignores_what_is_not_finite(tmp_path):
    for values in ([float("nan"), 3.0, 1.0], [2.0]):
        with RunWriter(tmp_path) as run:
            for value in values:
                run.log_metrics({"loss": value})
    loss = json.loads((tmp_path / "summary.json").read_text())["metrics"]["loss"]
    assert loss == {"last": 2.0, "min": 1.0, "max": 3.0, "count": 4, "non_finite": 1}


def test_a_row_costs_the_step_no_call_of_the_file_system(tmp_path, monkeypatch):
    who = set()

    def counted(call):
        def count(*args, **kwargs):
            who.add(threading.current_thread().name)
            return call(*args, **kwargs)

        return count

    for name in ("open", "write", "fsync", "replace", "stat"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    run = RunWriter(tmp_path, flush_every_s=0.01, flush_every_rows=100)
    who.clear()
    for step in range(2000):
        run.log_metrics({"loss": 0.5, "acc": 0.25, "lr": 0.1}, step=step)
    while run._rows:
        time.sleep(0.001)
    assert who == {"spt-registry"}
    run.finalize()
    assert len(rows(tmp_path)) == 2000


def test_media_are_kept_under_names_that_never_meet(tmp_path):
    with RunWriter(tmp_path) as run:
        run.log_image("a/b", np.zeros((4, 5, 3), np.uint8), step=3, caption="c")
        run.log_image("a__b", [np.ones((3, 4, 5)), np.full((4, 5), np.nan)])
        run.log_image("..", array_to_png(np.zeros((2, 2))))
        run.log_video("clip", b"mp4 bytes", fps=5)
        with pytest.raises(TypeError, match="A image must be a path, bytes, or an array; got int"):
            run.log_image("x", 3)
        with pytest.raises(ValueError, match=r"must have shape .* got \(2, 2, 2\)"):
            run.log_image("x", np.zeros((2, 2, 2)))
        with pytest.raises(ValueError, match="must end with one of"):
            run.log_image("x", "page.html")
    events = [json.loads(line) for line in (tmp_path / "media.jsonl").read_text().splitlines()]
    assert [event["tag"] for event in events] == ["a/b", "a__b", "a__b", "..", "clip"]
    paths = [tmp_path / event["path"] for event in events]
    assert len(set(paths)) == 5
    assert all(path.resolve().is_relative_to(tmp_path.resolve() / "media") for path in paths)
    from PIL import Image

    with Image.open(paths[0]) as first, Image.open(paths[1]) as second:
        assert first.size == (5, 4)
        assert second.getpixel((0, 0)) == (255, 255, 255)
    assert len(folder_name("x" * 500)) < 200


def test_a_replayed_step_leaves_the_pictures_of_the_attempt_before(tmp_path):
    """Viewers keep a file by its name; one that is written over would show the wrong picture."""
    for shade in (0.0, 1.0):
        with RunWriter(tmp_path) as run:
            run.log_image("a", [np.full((2, 2), shade), np.full((2, 2), shade)], step=7)
            run.log_image("a", np.full((2, 2), shade), step=7)
    events = [json.loads(line) for line in (tmp_path / "media.jsonl").read_text().splitlines()]
    assert [(event["step"], event["attempt"]) for event in events] == [(7, 1)] * 3 + [(7, 2)] * 3
    contents = [(tmp_path / event["path"]).read_bytes() for event in events]
    assert len({event["path"] for event in events}) == 6
    assert len(set(contents)) == 2
    assert contents[0] == contents[2] != contents[3] == contents[5]


def test_media_of_one_tag_are_limited(tmp_path, monkeypatch, told):
    monkeypatch.setattr(_media, "MAX_FILES", 3)
    with RunWriter(tmp_path) as run:
        for _ in range(5):
            run.log_image("a", np.zeros((2, 2)))
        run.log_image("b", np.zeros((2, 2)))
    assert "holds 3 files; no more are kept" in told[0]
    events = [json.loads(line) for line in (tmp_path / "media.jsonl").read_text().splitlines()]
    assert [event["tag"] for event in events] == ["a", "a", "a", "b"]
    assert len({event["path"] for event in events}) == 4


def test_only_rank_zero_and_only_the_process_that_opened_it_write(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with RunWriter(tmp_path / "rank1", hparams={"a": 1}) as run:
        run.log_metrics({"loss": 1.0})
        run.add_tags("t")
        run.log_checkpoint(last="x")
        run.log_image("i", np.zeros((2, 2)))
        run.save()
    assert not (tmp_path / "rank1").exists()
    monkeypatch.delenv("RANK")
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom spt_registry import RunWriter\n"
        "run = RunWriter(sys.argv[1])\n"
        "path = Path(sys.argv[1], 'sidecar.json')\n"
        "before = path.read_text()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    run.log_metrics({'loss': 1.0})\n"
        "    run.save()\n"
        "    run.finalize('failed')\n"
        "    os._exit(0)\n"
        "print(os.waitpid(child, 0)[1], path.read_text() == before)\n"
        "run.finalize()\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", program, str(tmp_path / "rank0")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "0 True\n", done.stderr
    assert sidecar(tmp_path / "rank0")["status"] == "completed"
    assert not (tmp_path / "rank0" / "metrics.csv").exists()
