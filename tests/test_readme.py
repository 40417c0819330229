"""The programs of the root README run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def blocks(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


def shortened(program: str, cache_dir: Path) -> str:
    """The same program for a few batches, recorded under a temporary folder."""
    brief = "max_epochs=1, limit_train_batches=3, limit_val_batches=2, log_every_n_steps=1"
    assert "max_epochs=100" in program
    assert '"~/runs"' in program
    program = program.replace("batch_size=256", "batch_size=32")
    program = program.replace("bf16-mixed", "32-true")  # where bf16 is emulated it takes minutes
    return program.replace("max_epochs=100", brief).replace('"~/runs"', repr(str(cache_dir)))


@pytest.mark.slow
def test_the_tour_and_the_custom_forward_run(tmp_path):
    import stable_pretraining as spt

    tour, custom = blocks(ROOT / "README.md")
    names: dict = {}
    with spt.config_context():
        exec(shortened(tour, tmp_path), names)
    trainer = names["trainer"]
    assert trainer.global_step == 3
    for key in ("eval/probe_acc", "eval/knn_acc"):
        assert 0 <= trainer.callback_metrics[key] <= 1
    (record,) = spt.open_registry(cache_dir=tmp_path).query()
    assert record.status == "completed"
    assert {"eval/probe_acc", "eval/knn_acc"} <= set(record.summary)

    exec(custom, names)
    module = spt.Module(
        forward=names["forward"],
        backbone=spt.backbone.from_timm("resnet18", num_classes=0),
        projector=spt.backbone.MLP(512, 512, 128),
        simclr_loss=spt.losses.NTXEntLoss(temperature=0.5),
    )
    names["pl"].Trainer(
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        limit_val_batches=1,
        default_root_dir=tmp_path,
    ).fit(module, names["dm"])


def test_the_readme_names_every_package_and_every_method():
    from spt_methods.catalogue import CATALOGUE

    text = (ROOT / "README.md").read_text()
    for package in (ROOT / "packages").iterdir():
        assert f"[`{package.name}`](packages/{package.name})" in text
    families = text.split("## The methods")[1].split("\n## ")[0]
    assert {row.method for row in CATALOGUE} <= set(re.findall(r"\w+", families))


def test_a_readme_of_each_package_is_executed_by_its_tests():
    for readme in (ROOT / "packages").glob("*/README.md"):
        if blocks(readme):
            assert (readme.parent / "tests" / "test_readme.py").is_file(), readme.parent.name
