"""Streamed to a temporary file, verified, synced, renamed; in the background if asked."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from loguru import logger
from spt_registry.run import atomic_file
from torch import Tensor

from spt_manager.checkpointing.files import LAST, is_whole, keep_previous


class AtomicCheckpointIO(TorchCheckpointIO):
    """Stream a checkpoint to a temporary file beside its target, verify it, fsync, rename.

    The ``last.ckpt`` that is replaced stays as ``last-previous.ckpt``.

    Args:
        background: Copy the checkpoint to (pinned) host memory and write it on a thread; the next
            save waits for the one before.
        go_on: Log an error when the disk is full or the like, instead of raising; the checkpoint
            before stays.

    Attributes:
        error: What went wrong with the last save, if training was to go on.
    """

    def __init__(self, *, background: bool = False, go_on: bool = False) -> None:
        self.background = background
        self.go_on = go_on
        self.error: OSError | None = None
        self._thread: threading.Thread | None = None
        self._raised: BaseException | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Save.

        Args:
            checkpoint: What to save.
            path: A local path.
            storage_options: Must be ``None``.

        Raises:
            OSError: If it cannot be written and training need not go on.
            TypeError: If there are storage options.
        """
        if storage_options is not None:
            raise TypeError("`storage_options` is not supported for checkpoints, leave it out.")
        self.wait()
        if not self.background:
            self._write(checkpoint, Path(path))
            return
        copied = to_host(checkpoint)
        self._thread = threading.Thread(
            target=self._write_aside, args=(copied, Path(path)), name="spt-checkpoint"
        )
        self._thread.start()

    def wait(self) -> None:
        """Wait for a save in the background, and raise what it has raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised

    def teardown(self) -> None:
        """Wait for a save in the background."""
        self.wait()

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint, after the save that may be on its way."""
        self.wait()
        super().remove_checkpoint(path)

    def _write_aside(self, checkpoint: dict[str, Any], target: Path) -> None:
        try:
            self._write(checkpoint, target)
        except BaseException as error:
            self._raised = error

    def _write(self, checkpoint: dict[str, Any], target: Path) -> None:
        self.error = None
        try:
            write(checkpoint, target)
        except OSError as error:
            self.error = error
            if not self.go_on:
                raise
            logger.error(
                f"The checkpoint {target} could not be written ({error}). Training goes on; the "
                "checkpoint before it is kept. Make room, or a stop loses the steps since then."
            )


class _Watched:
    """A file that remembers the error that torch turns into one of its own."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return int(self.file.write(data))
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def write(checkpoint: dict[str, Any], target: Path) -> None:
    """Write a checkpoint that appears whole or not at all.

    Raises:
        OSError: If the file cannot be written, or does not read back as it was written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(target) as file:
        watched = _Watched(file)
        try:
            torch.save(checkpoint, cast(IO[bytes], watched))
            file.flush()
        except Exception as error:
            if watched.error is not None:
                raise watched.error from error
            raise
        if not is_whole(Path(file.name)):
            raise OSError(f"{target} does not read back as it was written")
        if target.name == LAST and target.exists():
            keep_previous(target)


def to_host(value: Any) -> Any:
    """A copy whose tensors are in host memory, pinned where they come from an accelerator."""
    if isinstance(value, Tensor):
        if value.device.type == "cpu":
            return value.detach().clone()
        host = torch.empty(value.shape, dtype=value.dtype, pin_memory=value.is_cuda)
        return host.copy_(value.detach())
    if isinstance(value, dict):
        copied = type(value)() if type(value) is not dict else {}
        copied.update({key: to_host(item) for key, item in value.items()})
        return copied
    if type(value) in (list, tuple):
        return type(value)(to_host(item) for item in value)
    return value
