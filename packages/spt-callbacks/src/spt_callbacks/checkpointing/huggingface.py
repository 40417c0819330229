"""Export the Hugging Face models of a module with every checkpoint."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as pl
from loguru import logger


class HuggingFaceCheckpointCallback(pl.Callback):
    """Write each direct child that is a ``PreTrainedModel`` as ``from_pretrained`` reads it.

    An export lies in ``{save_dir}/last/{child}`` or ``{save_dir}/step_{n}/{child}``. A model class
    of your own travels with its source files and an ``auto_map``: reload it anywhere with
    ``AutoModel.from_pretrained(path, trust_remote_code=True)``. An export replaces the one before
    only when it is complete. A module without such a child leaves no trace.

    Args:
        save_dir: Folder; a relative one lies in the Trainer's ``default_root_dir``.
        per_step: Keep one export a step, instead of the last.
        verbose: Say what was exported.
        raise_on_error: End the run if an export fails; else training goes on, with an error logged.

    Attributes:
        artifacts: The folder of exports, once there is one.
    """

    def __init__(
        self,
        save_dir: str | Path = "hf_exports",
        per_step: bool = False,
        verbose: bool | None = None,
        raise_on_error: bool = False,
    ) -> None:
        self.save_dir = Path(save_dir)
        self.per_step = per_step
        self.verbose = verbose
        self.raise_on_error = raise_on_error
        self.artifacts: list[Path] = []

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Export on rank 0."""
        models = huggingface_children(pl_module)
        if not models or not trainer.is_global_zero:
            return
        root = Path(trainer.default_root_dir) / self.save_dir
        folder = root / (f"step_{trainer.global_step}" if self.per_step else "last")
        for name, model in models.items():
            try:
                export(model, folder / name)
            except Exception as error:
                if self.raise_on_error:
                    raise
                logger.exception(f"The export of {name!r} to {folder} failed: {error}")
            else:
                self.artifacts = [root]
                if self.verbose:
                    logger.info(f"Exported {name!r} to {folder / name}.")


def huggingface_children(module: pl.LightningModule) -> dict[str, Any]:
    """The direct children that are Hugging Face models, compiled ones too."""
    transformers = sys.modules.get("transformers")
    if transformers is None:  # then no such model can exist
        return {}
    children = {n: getattr(c, "_orig_mod", c) for n, c in module.named_children()}
    return {n: c for n, c in children.items() if isinstance(c, transformers.PreTrainedModel)}


def export(model: Any, target: Path) -> None:
    """Save a Hugging Face model to a folder, which is replaced as a whole.

    Args:
        model: A ``PreTrainedModel``.
        target: The folder.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh, old = (target.with_name(f".{target.name}.{kind}") for kind in ("new", "old"))
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    with _own_code_included(model):
        model.save_pretrained(fresh)
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _own_code_included(model: Any) -> Iterator[None]:
    """Have ``save_pretrained`` copy the source of classes that transformers does not have."""
    kinds = [
        (kind, auto)
        for kind, auto in ((type(model), "AutoModel"), (type(model.config), "AutoConfig"))
        if not kind.__module__.startswith("transformers.") and kind._auto_class is None
    ]
    for kind, auto in kinds:
        kind.register_for_auto_class(auto)
    try:
        yield
    finally:
        for kind, _ in kinds:
            kind._auto_class = None
