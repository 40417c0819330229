"""The benchmark of learning runs, knows every method of images, and prints its rows again."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from spt_methods.catalogue import CATALOGUE, LEARNED

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "benchmarks" / "learning.py"


@pytest.fixture(scope="module")
def learning() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PROGRAM.parent)  # as where the program is started
        yield importlib.import_module("learning")


def squares() -> dict[str, Any]:
    """Images of ten classes: a bright square at one of ten places, in noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 10
    images = 0.2 * torch.rand(300, 1, 32, 32, generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        top, left = 16 * (label // 5), 6 * (label % 5)
        image[0, top : top + 10, left : left + 6] += 0.7
    return dict.fromkeys(("pretrain", "probe", "test"), (images, labels))


def test_has_every_method_of_images(learning: ModuleType) -> None:
    images = {row.method for row in CATALOGUE if row.views != "image and text"}
    assert set(learning.METHODS) == images


def test_runs_and_prints_its_rows_again(
    learning: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(learning, "load", squares)
    monkeypatch.setattr(learning, "LABELLED", 300)
    threads, out = torch.get_num_threads(), tmp_path / "rows.jsonl"
    try:
        learning.main(["raw pixels", "SimCLR", "MAE", "--images=256", f"--out={out}"])
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["name"] for row in rows] == ["raw pixels", "SimCLR", "MAE"]
    assert rows[0]["knn"] == 100
    assert rows[0]["linear"] == 100
    assert all(10 < row[key] <= 100 for row in rows[1:] for key in ("knn", "linear"))
    learning.main([f"--table={out}"])
    again = capsys.readouterr().out.strip()
    assert again in printed
    assert len(again.splitlines()) == 5


def test_an_accelerator_gets_the_longer_budget(
    learning: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(learning, "load", squares)
    monkeypatch.setattr(learning, "run", lambda name, data, images, seed: seen.append(images) or {})
    monkeypatch.setattr(learning, "table", str)
    for available in (False, True):
        monkeypatch.setattr(torch.accelerator, "is_available", lambda found=available: found)
        learning.main(["SimCLR", f"--threads={torch.get_num_threads()}"])
    assert seen == [200_000, 2_000_000]


def test_names_an_unknown_method(learning: ModuleType) -> None:
    with pytest.raises(SystemExit, match="SimCRL"):
        learning.main(["SimCRL"])


def measured() -> list[dict[str, Any]]:
    """The rows of the page."""
    return [json.loads(line) for line in (PROGRAM.with_suffix(".jsonl")).read_text().splitlines()]


def test_every_method_has_learned_something(learning: ModuleType) -> None:
    rows = [row for row in measured() if row["name"] in learning.METHODS]
    assert {row["name"] for row in rows} == set(learning.METHODS)
    assert {row["images"] for row in rows} == {learning.BUDGETS["cpu"]}
    for row in rows:
        assert row["knn"] > row["untrained_knn"], row["name"]
        assert row["linear"] > row["untrained_linear"], row["name"]


def test_the_page_and_the_table_of_methods_say_what_was_measured(learning: ModuleType) -> None:
    rows, page = measured(), (ROOT / "docs" / "learning.md").read_text()
    assert learning.table(rows) in page
    for name in learning.METHODS:
        assert LEARNED[name] == learning.cell([row for row in rows if row["name"] == name])
    assert {row.method for row in CATALOGUE} == set(LEARNED)
    for name in ("CLIP", "SigLIP"):
        before, after = re.findall(
            rf"^\| {name} \| 0 \| ([\d.]+) \| ([\d.]+) ", page, re.MULTILINE
        )[0]
        assert LEARNED[name] == f"zero-shot {after} (untrained {before})"
        assert float(after) > 40  # chance is 10
