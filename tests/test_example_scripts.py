"""The example scripts and the notebook run for a few steps and report what they promise."""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
# script: what its `main` takes, and what it reports
SCRIPTS = {
    "callback_in_lightning": ((16,), {"eval/probe_acc", "rankme"}),
    "clip": ((2,), {"eval/zero_shot_acc"}),
    "dino_multicrop": ((2,), {"eval/knn_acc"}),
    "imbalanced": ((2, True), {"eval/probe_accuracy", "eval/probe_mean_of_classes"}),
    "jax_images": ((2, "runs"), {"eval/knn_acc", "eval/probe_acc", "rankme"}),
    "jax_minimal": ((20,), {"fit/loss"}),
    "loss_in_plain_torch": ((20,), {"first", "last"}),
    "mae": ((2,), {"eval/probe_acc", "rankme"}),
    "multi_layer_probing": ((2,), {"eval/sweep_acc"}),
    "simclr": ((2, "runs"), {"fit/loss"}),
    "supervised": ((2,), {"eval/probe_acc", "validate/loss"}),
}


def test_every_script_is_run():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SCRIPTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs_for_a_few_steps(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, reported = SCRIPTS[name]
    arguments = [str(tmp_path / "runs") if a == "runs" else a for a in arguments]
    script = runpy.run_path(str(EXAMPLES / f"{name}.py"))
    metrics = script["main"](*arguments)
    assert reported <= set(metrics)
    assert all(math.isfinite(value) for value in metrics.values())
    assert f"python examples/{name}.py" in script["__doc__"]
    left = {path.name for path in tmp_path.iterdir()}
    assert left <= {"runs", "attention.png"}, "a script leaves nothing else behind"


def test_the_plain_loop_learns():
    losses = runpy.run_path(str(EXAMPLES / "loss_in_plain_torch.py"))["main"](100)
    assert losses["last"] < losses["first"]


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    import matplotlib

    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    tool = runpy.run_path(str(ROOT / "tools" / "docs_pages.py"))
    code = "\n\n".join(tool["code_cells"](tool["NOTEBOOK"]))
    for setting, shorter in (("epochs = 12", "epochs = 1"), ("n_images = 6000", "n_images = 512")):
        assert code.count(f"\n{setting}\n") == 1
        code = code.replace(f"\n{setting}\n", f"\n{shorter}\n")
    names: dict = {"__name__": "__main__"}
    exec(compile(code, "simclr_tutorial.ipynb", "exec"), names)
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "views.png", "curves.png", "neighbours.png", "map.png",
    }  # fmt: skip
    assert [record.status for record in names["registry"].query()] == ["completed"] * 2
    for knn, linear in names["results"].values():
        assert 10 < knn <= 100
        assert 10 < linear <= 100
    names["plt"].close("all")


def test_the_notebook_is_stored_without_outputs():
    notebook = json.loads((EXAMPLES / "simclr_tutorial.ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
