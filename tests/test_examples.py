"""The example configurations run, by the command that their first lines tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from stable_pretraining.cli import main

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
BRIEF = [
    "dataset=sample",
    "batch_size=16",
    "+trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "+trainer.limit_train_batches=2",
    "+trainer.limit_val_batches=1",
    "+trainer.log_every_n_steps=1",
]


def spt(*arguments, cwd, **environ):
    """What the command prints; it must succeed."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SPT_"))}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("spt")), *map(str, arguments)],
        env={**clean, "OMP_NUM_THREADS": "1", **environ},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
def test_the_simclr_example_runs_and_its_features_are_judged(tmp_path):
    cache = tmp_path / "cache"
    config = EXAMPLES / "simclr_cifar10_config.yaml"
    spt(config, *BRIEF, "lr=0.02", cwd=tmp_path, SPT_CACHE_DIR=str(cache))
    (state,) = [json.loads(path.read_text()) for path in cache.rglob("sidecar.json")]
    assert state["status"] == "completed"
    assert {"eval/probe_acc", "eval/knn_acc"} <= set(state["summary"])
    assert any(name.startswith("fit/loss") for name in state["summary"])
    assert state["hparams"]["module.optim.optimizer.lr"] == 0.02
    assert state["tags"] == ["simclr", "cifar10"]
    assert {path.name for path in tmp_path.iterdir()} == {"cache"}
    assert state["run_id"] in spt("registry", "ls", cwd=tmp_path, SPT_CACHE_DIR=str(cache))


def spt_here(*arguments):
    """The same in this process, which has imported what takes seconds."""
    result = CliRunner().invoke(main, [*map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
def test_the_check_shows_the_shapes_of_an_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = EXAMPLES / "simclr_cifar10_config.yaml"
    shown = spt_here("config", "check", config, "dataset=sample", "batch_size=4")
    lines = dict(line.split(None, 1) for line in shown.splitlines() if line.startswith("step."))
    assert lines["step.projection"] == "float32 (8, 128)"
    assert lines["step.embedding"] == "float32 (8, 512)"


@pytest.mark.slow
def test_a_tokenizer_is_trained_and_its_weights_make_tokens(tmp_path, monkeypatch):
    import stable_pretraining as spt_names
    import torch

    monkeypatch.chdir(tmp_path)
    cache = tmp_path / "cache"
    config = EXAMPLES / "vq_tokenizer.yaml"
    spt_here(config, *BRIEF, "width=8", f"+settings.cache_dir={cache}")
    (path,) = cache.rglob("last.ckpt")
    tokenizer = spt_names.methods.VQTokenizer(vocab_size=512, patch_size=4, hidden_dim=8)
    tokenizer.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    tokens = tokenizer.tokenize(torch.rand(2, 3, 32, 32))
    assert tokens.shape == (2, 64)
    assert tokens.min() >= 0
    assert tokens.max() < 512
