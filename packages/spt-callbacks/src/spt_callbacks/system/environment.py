"""Where a run ran: versions, hardware, commit, variables."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
from datetime import datetime, timezone
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import lightning as pl
import torch
from loguru import logger

from spt_callbacks._files import write_text

SHOWN = re.compile(
    r"^(CUDA_|NCCL_|OMP_|MKL_|SLURM_|SPT_|PYTHONPATH$|LD_LIBRARY_PATH$|PATH$|MASTER_ADDR$"
    r"|MASTER_PORT$|WORLD_SIZE$|RANK$|LOCAL_RANK$)"
)
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|PRIVATE|AUTH", re.IGNORECASE)
KEY_PACKAGES = ("torch", "torchvision", "lightning", "timm", "torchmetrics", "datasets", "numpy")


class EnvironmentDumpCallback(pl.Callback):
    """Write ``environment.json`` and ``requirements_frozen.txt`` when ``fit`` begins, on rank 0.

    They lie in the Trainer's ``default_root_dir``; earlier ones stay, and new ones are named
    ``environment_v1.json`` and so on. Values of variables whose names speak of secrets, and
    credentials in the address of the git remote, are masked.

    Args:
        filename: Name of the JSON file.
        async_dump: Write in a thread that is joined at the end.
    """

    def __init__(self, filename: str = "environment.json", async_dump: bool = True) -> None:
        self.filename = filename
        self.async_dump = async_dump
        self._written: list[Path] = []
        self._thread: threading.Thread | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write."""
        if stage != "fit" or not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir)
        if self.async_dump:
            self._thread = threading.Thread(target=self._dump, args=(folder,), daemon=True)
            self._thread.start()
        else:
            self._dump(folder)

    def _dump(self, folder: Path) -> None:
        try:
            name = Path(self.filename)
            environment = _unused(folder / name)
            version = environment.stem[len(name.stem) :]
            requirements = folder / f"requirements_frozen{version}.txt"
            write_text(environment, json.dumps(environment_facts(), indent=2))
            write_text(requirements, "\n".join(installed_packages()) + "\n")
            self._written += [environment, requirements]
        except OSError as error:  # a full disk must not end a run because of its notes
            logger.error(f"EnvironmentDumpCallback could not write to {folder}: {error}")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Wait for the thread."""
        self._join()

    @property
    def artifacts(self) -> list[Path]:
        """The files written, once they are."""
        self._join()
        return list(self._written)

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the thread, and without the module's ``log`` that Lightning puts here."""
        dropped = ("log", "log_dict")
        return {
            k: None if k in ("_thread",) else v for k, v in vars(self).items() if k not in dropped
        }


def _unused(path: Path) -> Path:
    candidate, version = path, 0
    while candidate.exists():
        version += 1
        candidate = path.with_stem(f"{path.stem}_v{version}")
    return candidate


def environment_facts() -> dict[str, Any]:
    """Everything that is written, as plain values."""
    packages = installed_packages()
    names = dict(line.split("==", 1) for line in packages)
    return {
        "timestamp": datetime.now(timezone.utc).isoformat(),
        "python": {"version": sys.version, "executable": sys.executable},
        "system": {
            "platform": platform.platform(),
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
        },
        "packages": {
            "pip_freeze": packages,
            "key_packages": {name: names[name] for name in KEY_PACKAGES if name in names},
            "total_packages": len(packages),
        },
        "cuda": _cuda_facts(),
        "git": git_facts(Path.cwd()),
        "slurm": {k: v for k, v in shown_variables().items() if k.startswith("SLURM_")},
        "environment_variables": shown_variables(),
    }


def installed_packages() -> list[str]:
    """Installed distributions as ``name==version``, sorted, whoever installed them."""
    found = {d.metadata["Name"].lower(): d.version for d in distributions() if d.metadata["Name"]}
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def shown_variables() -> dict[str, str]:
    """The environment variables that shape a run, secrets masked."""
    return {
        name: "***" if SECRET.search(name) else without_credentials(value)
        for name, value in sorted(os.environ.items())
        if SHOWN.match(name)
    }


def without_credentials(text: str) -> str:
    """Mask the user part of addresses.

    Example:
        >>> without_credentials("https://me:token@example.org/x.git")
        'https://***@example.org/x.git'
    """
    return re.sub(r"(\w+://)[^/@\s]+@", r"\1***@", text)


def git_facts(folder: Path) -> dict[str, Any]:
    """Commit, branch, remote and changed files of a working tree; empty where there is none."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {}
    changes = _git(folder, "status", "--porcelain") or ""
    return {
        "commit_hash": commit,
        "branch": _git(folder, "rev-parse", "--abbrev-ref", "HEAD"),
        "has_uncommitted_changes": bool(changes),
        "uncommitted_changes": changes.splitlines(),
        "remote_url": without_credentials(_git(folder, "remote", "get-url", "origin") or ""),
    }


def _git(folder: Path, *arguments: str) -> str | None:
    if shutil.which("git") is None:
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30
        )
    except subprocess.TimeoutExpired:
        return None
    return done.stdout.rstrip("\n") if done.returncode == 0 else None


def _cuda_facts() -> dict[str, Any]:
    facts: dict[str, Any] = {
        "built_with": torch.version.cuda,
        "available": torch.cuda.is_available(),
    }
    if facts["available"]:
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        facts |= {"devices": names, "cudnn": torch.backends.cudnn.version()}
    return facts
