"""Reading metrics back."""

import math

import pytest
from spt_registry import RunWriter, _metrics_file
from spt_registry.index.history import read_history
from spt_registry.index.query import Registry


def test_rows_come_back_as_they_were_logged(tmp_path):
    with RunWriter(tmp_path) as run:
        run.log_metrics({"loss": 0.5, "n": 3}, step=0)
        run.log_metrics({"loss": float("inf"), "late": 1e-300}, step=1)
        run.log_metrics({"loss": float("nan"), "a,b": 2}, step=1)
    frame = read_history(tmp_path)
    assert list(frame.columns) == ["step", "loss", "n", "late", "a,b"]
    assert frame["step"].tolist() == [0, 1, 1]
    assert frame["loss"][0] == 0.5
    assert math.isinf(frame["loss"][1])
    assert math.isnan(frame["loss"][2])
    assert frame["late"][1] == 1e-300
    assert list(read_history(tmp_path, ["late"]).columns) == ["step", "late"]
    with pytest.raises(KeyError, match=r"has no \['nothing'\]; there are \['step', 'loss'"):
        read_history(tmp_path, ["nothing"])


def test_late_cells_are_put_in_their_place(tmp_path, monkeypatch):
    monkeypatch.setattr(_metrics_file, "SMALL", 0)
    monkeypatch.setattr(_metrics_file, "GROWTH", 1e9)
    file = _metrics_file.MetricsFile(tmp_path / "metrics.csv")
    file.append([{"step": 0, "a": 1}])
    file._widened_size = file.path.stat().st_size
    for step in range(1, 4):
        file.append([{"step": step, "a": 1, "b": step / 2}])
    assert file.late_path.exists()
    frame = read_history(tmp_path)
    assert frame["b"].tolist()[1:] == [0.5, 1.0, 1.5]
    assert math.isnan(frame["b"][0])
    assert read_history(tmp_path, ["b"])["b"].tolist()[1:] == [0.5, 1.0, 1.5]


@pytest.mark.parametrize(
    ("content", "losses"),
    [
        ("step,loss\n0,1.0\n1,0.", [1.0]),
        ("step,loss\n0,1.0\n1\n2,0.5\n", [1.0, 0.5]),
        ("step,loss\n0,1.0\n\0\0\0\0", [1.0]),
        ("step,loss\n", []),
        ("step,lo", []),
        ("", []),
    ],
)
def test_whatever_state_a_crash_left(tmp_path, content, losses):
    (tmp_path / "metrics.csv").write_text(content)
    frame = read_history(tmp_path)
    assert (frame["loss"].tolist() if losses else list(frame.index)) == losses
    assert frame.columns[0] == "step"


def test_a_run_that_logged_nothing(tmp_path):
    RunWriter(tmp_path / "r").finalize()
    assert read_history(tmp_path / "r").columns.tolist() == ["step"]


def test_text_of_another_writer(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,stage\n0,fit\n")
    assert read_history(tmp_path)["stage"].tolist() == ["fit"]


def test_a_million_rows(tmp_path, put):
    folder = put("r")
    with (folder / "metrics.csv").open("w") as file:
        file.write("step,loss,acc\n")
        file.writelines(f"{i},{i / 7:.6g},{i / 1e6:.6g}\n" for i in range(1_000_000))
        file.write("1000000,0.1")
    registry = Registry(tmp_path, tmp_path / "registry.db")
    registry.scan()
    frame = registry.history("r")
    assert len(frame) == 1_000_000
    assert (frame["step"].iat[-1], frame["acc"].iat[-1]) == (999_999, 0.999999)
    with RunWriter(folder, "r") as run:  # the torn line is repaired, a late column joins
        run.log_metrics({"loss": 1.0, "new": 2.0}, step=1_000_000)
    frame = registry.history("r", ["new"])
    assert len(frame) == 1_000_001
    assert frame["new"].iat[-1] == 2.0
