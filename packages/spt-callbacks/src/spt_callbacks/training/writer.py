"""Write what the steps return, an epoch a file."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import lightning as pl
import torch
from torch import Tensor

from spt_callbacks._files import whole_file
from spt_callbacks.distributed import gather_rows, largest_of_ranks
from spt_callbacks.keys import look_up

PHASES = ("train", "validation", "test", "predict")
ROWS_PER_GATHER = 8192


class OnlineWriter(pl.Callback):
    """Collect tensors of the steps and save each epoch's as ``{path}/{phase}_epoch={e}.pt``.

    A file is a dict of the names, each with its rows in the order of the batches: ``torch.load``
    opens it with ``weights_only=True``. Rows wait in the host's memory until the epoch ends; a
    thread then writes the file whole or not at all. With several loaders the name ends in
    ``_loader={i}``.

    Args:
        names: Keys to save, looked up in the step's outputs, then in the batch.
        path: Folder; a relative one lies in the Trainer's ``default_root_dir``.
        during: Phases: ``"train"``, ``"validation"`` (or ``"val"``), ``"test"``, ``"predict"``.
        every_k_epochs: Save every k-th epoch; -1 for every one, 0 for none.
        save_last_epoch: Save the last training epoch (``max_epochs``) in any case.
        save_sanity_check: Save the sanity check too, as ``sanity_epoch={e}.pt``.
        all_gather: One file with the rows of all ranks; else a file a rank, ``_rank={r}``.

    Raises:
        ValueError: If a phase is unknown or ``every_k_epochs`` is below -1.
        OSError: If a file could not be written: raised at the end of a later epoch, or of the run.
    """

    def __init__(
        self,
        names: str | Sequence[str],
        path: str | Path,
        during: str | Sequence[str],
        every_k_epochs: int = -1,
        save_last_epoch: bool = False,
        save_sanity_check: bool = False,
        all_gather: bool = True,
    ) -> None:
        self.names = (names,) if isinstance(names, str) else tuple(names)
        self.path = Path(path)
        self.during = _phases((during,) if isinstance(during, str) else during)
        if every_k_epochs < -1:
            raise ValueError(f"`every_k_epochs` must be >= -1, got {every_k_epochs}.")
        self.every_k_epochs = every_k_epochs
        self.save_last_epoch = save_last_epoch
        self.save_sanity_check = save_sanity_check
        self.all_gather = all_gather
        self._rows: dict[int, dict[str, list[Tensor]]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._files: list[Path] = []
        self._written: list[Future[None]] = []

    @property
    def state_key(self) -> str:
        """Distinguishes writers."""
        return f"OnlineWriter[path={self.path}]"

    @property
    def artifacts(self) -> list[Path]:
        """The files written, once they are."""
        wait(self._written)
        return list(self._files)

    def _wanted(self, trainer: pl.Trainer, phase: str) -> bool:
        if trainer.sanity_checking:
            return self.save_sanity_check and "validation" in self.during
        if phase not in self.during:
            return False
        epoch = trainer.current_epoch
        last = trainer.max_epochs is not None and epoch == trainer.max_epochs - 1
        due = self.every_k_epochs == -1 or (
            self.every_k_epochs > 0 and epoch % self.every_k_epochs == 0
        )
        return due or (self.save_last_epoch and last)

    def _collect(
        self, trainer: pl.Trainer, phase: str, outputs: Any, batch: Any, loader: int
    ) -> None:
        if not self._wanted(trainer, phase):
            return
        rows = self._rows.setdefault(loader, {name: [] for name in self.names})
        for name in self.names:
            rows[name].append(_to_host(look_up(name, outputs, batch, "OnlineWriter")))

    def _save(self, trainer: pl.Trainer, pl_module: pl.LightningModule, phase: str) -> None:
        self._raise_failures(done_only=True)
        if not self._wanted(trainer, phase):
            return
        if pl_module.device.type == "cuda":
            torch.cuda.current_stream(pl_module.device).synchronize()  # the copies to the host
        for loader, rows in sorted(self._rows.items()):
            content = {name: torch.cat(parts) for name, parts in rows.items()}
            if self.all_gather:
                content = _gather(content, pl_module.device)
            if trainer.is_global_zero or not self.all_gather:
                self._write(self._file(trainer, phase, loader), content)
        self._rows.clear()

    def _file(self, trainer: pl.Trainer, phase: str, loader: int) -> Path:
        name = f"{'sanity' if trainer.sanity_checking else phase}_epoch={trainer.current_epoch}"
        name += f"_loader={loader}" if len(self._rows) > 1 else ""
        name += "" if self.all_gather else f"_rank={trainer.global_rank}"
        return Path(trainer.default_root_dir) / self.path / f"{name}.pt"

    def _write(self, path: Path, content: dict[str, Tensor]) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="online-writer")
        self._written.append(self._pool.submit(_save_file, path, content))
        self._files.append(path)

    def _raise_failures(self, *, done_only: bool) -> None:
        finished = [future for future in self._written if future.done() or not done_only]
        self._written = [future for future in self._written if future not in finished]
        for future in finished:
            future.result()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Collect."""
        self._collect(trainer, "train", outputs, batch, 0)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect."""
        self._collect(trainer, "validation", outputs, batch, dataloader_idx)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect."""
        self._collect(trainer, "test", outputs, batch, dataloader_idx)

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect."""
        self._collect(trainer, "predict", outputs, batch, dataloader_idx)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save."""
        self._save(trainer, pl_module, "train")

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save."""
        self._save(trainer, pl_module, "validation")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save."""
        self._save(trainer, pl_module, "test")

    def on_predict_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save."""
        self._save(trainer, pl_module, "predict")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Wait for the files."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
            self._pool = None
        self._raise_failures(done_only=False)


def _phases(during: Sequence[str]) -> frozenset[str]:
    named = ["validation" if phase == "val" else phase for phase in during]
    unknown = [phase for phase in named if phase not in PHASES]
    if unknown or not named:
        raise ValueError(f"`during` must name phases of {list(PHASES)}, got {list(during)}.")
    return frozenset(named)


def _to_host(value: Tensor) -> Tensor:
    """A copy on the host; from an accelerator into pinned memory, without waiting for it."""
    value = value.reshape(1) if value.ndim == 0 else value
    if value.device.type != "cuda":
        return value.cpu().clone()
    host = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
    return host.copy_(value, non_blocking=True)


def _gather(content: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Rows of all ranks, in portions that fit on the device; aligned across names."""
    gathered = {}
    for name, rows in content.items():
        portions = largest_of_ranks(-(-len(rows) // ROWS_PER_GATHER), device)
        parts = [
            gather_rows(rows[i * ROWS_PER_GATHER : (i + 1) * ROWS_PER_GATHER].to(device)).cpu()
            for i in range(portions)
        ]
        gathered[name] = torch.cat(parts)
    return gathered


def _save_file(path: Path, content: dict[str, Tensor]) -> None:
    with whole_file(path) as temporary:
        torch.save(content, temporary)
