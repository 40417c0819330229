"""``spt demo``: pretrain on the bundled images, watch it, and judge the result.

The backend trains (:mod:`.torch_backend`, :mod:`.jax_backend`); the report is the same for both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from stable_pretraining._lazy import load
from stable_pretraining.demo.features import Outcome, Split, knn_accuracy, load_split

EPOCHS = {"torch": 16, "jax": 8}


def run_demo(
    *,
    backend: Literal["torch", "jax"] = "torch",
    cache_dir: str | Path,
    epochs: int | None = None,
    seed: int = 0,
) -> Outcome:
    """Pretrain a small ResNet with SimCLR and report how good its features are.

    Args:
        backend: ``"torch"`` (Lightning) or ``"jax"`` (Flax NNX; extra ``jax``).
        cache_dir: Where the run is recorded.
        epochs: Passes over the 6,000 training images; ``None`` takes a few minutes on a CPU.
        seed: Seed of weights, order and augmentation.

    Returns:
        The run's directory and the features of the bundled images.
    """
    cache_dir = Path(cache_dir).expanduser().resolve()
    print(f"Pretraining a small ResNet with SimCLR ({backend}); runs are recorded in {cache_dir}")
    train, test = load_split("train"), load_split("test")
    trainer = load(f"stable_pretraining.demo.{backend}_backend")
    outcome: Outcome = trainer.pretrain(
        train, test, cache_dir=cache_dir, epochs=epochs or EPOCHS[backend], seed=seed
    )
    report(outcome, train, test, cache_dir)
    return outcome


def report(outcome: Outcome, train: Split, test: Split, cache_dir: Path) -> None:
    """Print the accuracies, the registry's table and what to try next; draw the picture."""
    from spt_registry import open_registry
    from spt_registry.cli import cli

    from stable_pretraining.demo.picture import draw

    print_accuracies(outcome, train, test)
    print("\nRuns in this cache directory (spt registry ls):\n")
    cli.main(["ls", "--cache-dir", str(cache_dir)], prog_name="spt registry", standalone_mode=False)
    history = open_registry(cache_dir=cache_dir).history(outcome.run_dir.name)
    try:
        picture = draw(history, outcome, train, test, outcome.run_dir / "demo.png")
        print(f"\nCurves and nearest neighbours: {picture}")
    except ModuleNotFoundError as error:
        print(f"\n{error}")
    print(next_steps(outcome.run_dir.name, cache_dir))


def print_accuracies(outcome: Outcome, train: Split, test: Split) -> None:
    """Print kNN accuracy beside the two baselines."""
    from rich.console import Console
    from rich.table import Table

    labels = (train.labels, test.labels)
    rows = {
        "trained encoder": outcome.trained,
        "same encoder, untrained": outcome.untrained,
        "raw pixels": (train.images, test.images),
    }
    table = Table(title=f"kNN accuracy on {len(test.labels):,} held-out images (k = 20)")
    table.add_column("features")
    table.add_column("dimensions", justify="right")
    table.add_column("accuracy", justify="right")
    for name, features in rows.items():
        width = features[0][0].numel()
        table.add_row(name, str(width), f"{100 * knn_accuracy(features, labels):.1f} %")
    Console().print(table)


def next_steps(run_id: str, cache_dir: Path) -> str:
    """What a newcomer may try after the demo."""
    return f"""
What to try next
  spt registry show {run_id} --cache-dir {cache_dir}
  spt registry best eval/knn_acc --cache-dir {cache_dir}
  spt demo --epochs 40          longer training, a new run in the table
  spt demo --jax                the same with JAX (pip install "stable-pretraining[jax]")
"""
