"""What a run writes, and that it survives what happens to runs."""

import csv
import json

import numpy as np
import pytest
from spt_registry import RunWriter


def sidecar(folder):
    return json.loads((folder / "sidecar.json").read_text())


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_everything_is_on_disk_at_the_start(tmp_path):
    run = RunWriter(tmp_path, "r", hparams={"optim": {"lr": 0.1}}, tags=["a"], config={"x": [1]})
    state = sidecar(tmp_path)
    assert state["status"] == "running"
    assert state["hparams"] == {"optim.lr": 0.1}
    assert state["config"] == {"x": [1]}
    assert (tmp_path / "heartbeat").exists()
    assert "optim.lr: 0.1" in (tmp_path / "hparams.yaml").read_text()
    run.finalize("success")
    assert sidecar(tmp_path)["status"] == "completed"
    assert sidecar(tmp_path)["ended_at"] >= state["created_at"]


def test_rows_with_late_columns(tmp_path):
    with RunWriter(tmp_path, flush_every_rows=2) as run:
        run.log_metrics({"loss": 1.0}, step=0)
        run.log_metrics({"loss": np.float32(0.5)}, step=1)
        run.log_metrics({"acc": True, "loss": float("nan")})
        run.log_metrics({"loss": float("inf")}, step=9)
    assert rows(tmp_path) == [
        {"step": "0", "loss": "1.0", "acc": ""},
        {"step": "1", "loss": "0.5", "acc": ""},
        {"step": "2", "loss": "nan", "acc": "1.0"},
        {"step": "9", "loss": "inf", "acc": ""},
    ]
    assert sidecar(tmp_path)["summary"] == {"loss": "inf", "acc": 1.0}


def test_what_is_no_number_is_refused(tmp_path):
    run = RunWriter(tmp_path)
    with pytest.raises(TypeError, match="metric 'name' must be a number, got str"):
        run.log_metrics({"name": "x"})
    with pytest.raises(ValueError, match=r"`status` must be one of .* got 'done'"):
        run.finalize("done")
    run.finalize()
    with pytest.raises(TypeError, match="`tags` must be a sequence of strings"):
        RunWriter(tmp_path, tags="demo")


def test_an_exception_is_recorded(tmp_path):
    with pytest.raises(ZeroDivisionError, match="division"), RunWriter(tmp_path):
        _ = 1 / 0
    assert sidecar(tmp_path)["status"] == "failed"
    assert "ZeroDivisionError" in sidecar(tmp_path)["error"]
    with pytest.raises(KeyboardInterrupt), RunWriter(tmp_path):
        raise KeyboardInterrupt
    assert sidecar(tmp_path)["status"] == "interrupted"


def test_a_second_attempt_continues_the_first(tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with RunWriter(tmp_path, tags=["a"], notes="note", hparams={"lr": 1}) as run:
        run.log_metrics({"loss": 1.0}, step=0)
        run.log_checkpoint(last="last.ckpt")
    first = sidecar(tmp_path)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("1,0.")  # torn by a crash
    (tmp_path / ".sidecar.json.7.ab.tmp").touch()
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    with RunWriter(tmp_path, tags=["b"]) as run:
        run.log_metrics({"loss": 0.7}, step=1)
        run.log_checkpoint(best="best.ckpt")
    second = sidecar(tmp_path)
    assert not list(tmp_path.glob(".*.tmp"))
    assert second["created_at"] == first["created_at"]
    assert (second["tags"], second["notes"], second["hparams"]) == (["a", "b"], "note", {"lr": 1})
    assert second["checkpoint_path"] == "best.ckpt"
    assert second["last_checkpoint_path"] == "last.ckpt"
    assert [attempt["status"] for attempt in second["attempts"]] == ["completed", "completed"]
    assert [attempt["job"] for attempt in second["attempts"]] == [None, "17"]
    assert [row["loss"] for row in rows(tmp_path)] == ["1.0", "0.7"]
