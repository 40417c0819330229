"""metrics.csv: appended, widened seldom, folded exactly."""

import csv
import json
import os
import subprocess
import sys
import time

import pytest
from spt_registry import RunWriter, _metrics_file
from spt_registry._metrics_file import MetricsFile


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def expected(written):
    names = list(dict.fromkeys(name for row in written for name in row))
    return [{name: str(row.get(name, "")) for name in names} for row in written]


@pytest.mark.parametrize("small", [0, 400, 10**9])
def test_late_columns_end_where_they_belong(tmp_path, monkeypatch, small):
    monkeypatch.setattr(_metrics_file, "SMALL", small)
    file = MetricsFile(tmp_path / "metrics.csv")
    written = []
    for block in range(40):
        new = [{"step": 5 * block + i, "a": i, f"late{block // 2}": block} for i in range(5)]
        file.append(new)
        written += new
        if block == 20:
            file = MetricsFile(tmp_path / "metrics.csv")  # a second attempt
    file.fold()
    assert rows(file.path) == expected(written)
    assert not file.late_path.exists()


def test_a_new_name_at_every_flush_does_not_rewrite_at_every_flush(tmp_path, monkeypatch):
    monkeypatch.setattr(_metrics_file, "SMALL", 1000)
    file = MetricsFile(tmp_path / "metrics.csv")
    rewrites = []
    fold = file.fold
    monkeypatch.setattr(file, "fold", lambda new=(): (rewrites.append(1), fold(new)))
    for step in range(300):
        file.append([{"step": step, **{f"m{i}": 0.5 for i in range(10)}, f"n{step}": 1}])
    assert 5 < len(rewrites) < 60
    fold()
    assert len(rows(file.path)) == 300


def test_a_fold_that_was_cut_short_is_done_again(tmp_path, monkeypatch):
    monkeypatch.setattr(_metrics_file, "SMALL", 0)
    file = MetricsFile(tmp_path / "metrics.csv")
    for step in range(4):
        file.append([{"step": step, "a": 1, **({"b": step} if step > 1 else {})}])
    late = file.late_path.read_bytes() if file.late_path.exists() else b"row,step,name,value\n"
    file.fold()
    file.late_path.write_bytes(late + b"3,3,b,")  # the old cells are there again, the last torn
    again = MetricsFile(file.path)
    assert [row["b"] for row in rows(again.path)] == ["", "", "2", "3"]


def test_cells_of_rows_that_a_resume_cut_off_are_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(_metrics_file, "SMALL", 0)
    monkeypatch.setattr(_metrics_file, "GROWTH", 1e9)
    file = MetricsFile(tmp_path / "metrics.csv")
    file.append([{"step": 0, "a": 1}])
    file._widened_size = file.path.stat().st_size
    for step in range(1, 4):
        file.append([{"step": step, "a": 1, "b": step}])
    assert file.late_path.exists()
    content = file.path.read_bytes().splitlines(keepends=True)
    os.truncate(file.path, sum(map(len, content[:3])))
    file.append([{"step": 9, "a": 1, "b": 90}])
    file.fold()
    assert [(row["step"], row["b"]) for row in rows(file.path)] == [
        ("0", ""),
        ("1", "1"),
        ("9", "90"),
    ]


def wait_for_rows(path):
    deadline = time.monotonic() + 10
    while not (path.exists() and rows(path)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return rows(path)


def test_the_thread_writes_by_time_and_ends(tmp_path):
    run = RunWriter(tmp_path, flush_every_s=0.05)
    run.log_metrics({"a": 1})
    assert len(wait_for_rows(tmp_path / "metrics.csv")) == 1
    run.finalize()
    assert not run._flusher._thread.is_alive()


def test_the_thread_writes_by_count(tmp_path):
    run = RunWriter(tmp_path, flush_every_s=3600, flush_every_rows=10)
    for _ in range(9):
        run.log_metrics({"a": 1})
    time.sleep(0.1)
    assert not (tmp_path / "metrics.csv").exists()
    run.log_metrics({"a": 1})
    assert len(wait_for_rows(tmp_path / "metrics.csv")) == 10
    run.finalize()


@pytest.mark.parametrize("end", ["pass", "sys.exit(3)", "raise ValueError('planned')", "del run"])
def test_rows_that_wait_are_written_when_the_program_ends(tmp_path, end):
    """Without a `finalize`: the status stays, as nobody has said how it ended."""
    program = (
        "import sys\nfrom spt_registry import RunWriter\n"
        "run = RunWriter(sys.argv[1], flush_every_s=3600)\n"
        f"for _ in range(7): run.log_metrics({{'a': 1}})\n{end}\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True)
    assert (b"planned" in done.stderr) == ("planned" in end), done.stderr
    assert b"Exception ignored" not in done.stderr
    assert len(rows(tmp_path / "metrics.csv")) == 7
    state = json.loads((tmp_path / "sidecar.json").read_text())
    assert (state["status"], state["summary"]) == ("running", {"a": 1})
