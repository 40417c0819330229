"""The checkpoints in a folder: which are whole, which is the newest, what is left of a crash."""

from __future__ import annotations

import errno
import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from loguru import logger

from spt_manager.checkpointing.sharded import is_complete

LAST = "last.ckpt"
PREVIOUS = "last-previous.ckpt"


def keep_previous(last: Path) -> None:
    """Give ``last.ckpt`` a second name, which stays when the first is taken over."""
    link = last.with_name(f".{PREVIOUS}.{os.getpid()}.tmp")
    link.unlink(missing_ok=True)
    try:
        os.link(last, link)
    except OSError:  # no hard links here: until the rename that follows there is no last.ckpt
        link = last
    os.replace(link, last.with_name(PREVIOUS))


def is_whole(path: Path) -> bool:
    """Whether every byte of a checkpoint is as it was written, by the file's own checksums.

    A directory of shards is whole if its marker, which is written last, names all its files.
    """
    if path.is_dir():
        return is_complete(path)
    try:
        # what will read it, in its own words
        reader: Any = torch._C.PyTorchFileReader(str(path))
        for name in reader.get_all_records():
            reader.get_record_offset(name)
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except OSError as error:
        if error.errno in (None, errno.EINVAL):  # an offset that is none
            return False
        raise  # the disk's fault, not the file's
    except Exception:  # a header may be broken in any way
        return False


def is_resumable(path: Path) -> bool:
    """Whether a whole checkpoint has more than weights, by the words of its pickle, which is not run."""
    if path.is_dir():
        return True
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        return b"optimizer_states" in archive.read(name)


def newest_good(folder: Path) -> Path | None:
    """The checkpoint to go on from: ``last.ckpt``, else the newest one that is whole.

    One that is not whole is set aside under another name, with a message; nothing is deleted. One
    of weights alone is passed over.

    Args:
        folder: The run's checkpoints.
    """
    for path in candidates(folder):
        if path.exists() and is_whole(path):
            if is_resumable(path):
                return path
            continue
        if path.is_symlink():  # the pointer to a folder of shards
            pointer, path = path, path.resolve()
            pointer.unlink()
        if path.exists():
            aside = free_name(path.with_name(path.name + ".corrupt"))
            os.replace(path, aside)
            logger.error(
                f"The checkpoint {path} is corrupt; it is set aside as {aside.name}, and the "
                "newest good one is used."
            )
    return None


def candidates(folder: Path) -> list[Path]:
    """``last.ckpt``, if it is there, then the other checkpoints, folders of shards too, newest first."""
    last = folder / LAST
    shards = [path for path in folder.glob(f"{last.stem}-step=*") if path.is_dir()]
    others = [path for path in folder.glob("*.ckpt") if path.name != LAST]
    others += [path for path in shards if ".corrupt" not in path.name]
    others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return ([last] if last.exists() or last.is_symlink() else []) + others


def sweep(folder: Path) -> None:
    """Remove temporary files of writers that were killed; only the folder's owner may call it."""
    for path in folder.glob(".*.tmp"):
        if path.is_file() or path.is_symlink():
            logger.info(f"{path} is left from a writer that was killed; it is removed.")
            path.unlink(missing_ok=True)


def free_name(path: Path) -> Path:
    """The path, or the first of ``path-1``, ``path-2``, ... where there is nothing."""
    for i in range(1000):
        candidate = path if i == 0 else path.with_name(f"{path.name}-{i}")
        if not candidate.exists():
            return candidate
    raise FileExistsError(f"There are too many files named {path}*; remove some.")
