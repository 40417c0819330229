"""Which run a process belongs to, by the launcher's own variables."""

from __future__ import annotations

import getpass
import itertools
import os
import re
import sys
import uuid
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_runs = itertools.count()


@dataclass(frozen=True)
class RunIdentity:
    """Names a run.

    Attributes:
        run_id: Unique in its cache directory; a safe file name.
        launcher: What the id comes from.
        restart_count: How often the scheduler or the launcher has started it again; it grows with
            every restart.
        tags: Tags that follow from the launcher, such as ``sweep:<array job>``.
        owner: Cluster and user; a recycled job id of another owner is another run.
        slot: Tells apart the runs of one job; the same each time the job is started.
    """

    run_id: str
    launcher: Literal["explicit", "slurm", "torchrun", "local"]
    restart_count: int = 0
    tags: tuple[str, ...] = ()
    owner: str = ""
    slot: str = ""


def resolve_identity(
    environ: Mapping[str, str] | None = None, run_id: str | None = None
) -> RunIdentity:
    """The identity of this process's run.

    Args:
        environ: Environment variables; the process's own by default.
        run_id: An id chosen by the user; it wins over the launcher's.

    Returns:
        ``run_id`` if given; SLURM's ``JOBID`` or ``JOBID_TASKID``; torchrun's id; else twelve
        random hexadecimal digits.

    Raises:
        ValueError: If the id is no safe file name.

    Example:
        >>> slurm = {"SLURM_JOB_ID": "17", "SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "3"}
        >>> resolve_identity(slurm).run_id, resolve_identity(slurm).tags
        ('17_3', ('sweep:9',))
    """
    environ = os.environ if environ is None else environ
    owner = f"{environ.get('SLURM_CLUSTER_NAME', '')}/{_user()}"
    sweep = environ.get("SLURM_ARRAY_JOB_ID")
    tags = (f"sweep:{sweep}",) if sweep else ()
    slurm_restarts = int(environ.get("SLURM_RESTART_COUNT", 0))
    elastic_restarts = int(environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    # torchrun inside a job begins to count anew when SLURM restarts the job
    restarts = slurm_restarts * 1000 + elastic_restarts
    if run_id is not None:
        return RunIdentity(_safe(run_id), "explicit", restarts, tags, owner)
    job = environ.get("SLURM_JOB_ID")
    if job:
        task = environ.get("SLURM_ARRAY_TASK_ID")
        name = f"{job}_{task}" if task else job
        return RunIdentity(_safe(name), "slurm", restarts, tags, owner)
    elastic = environ.get("TORCHELASTIC_RUN_ID", "none")
    if elastic != "none":
        return RunIdentity(_safe(elastic), "torchrun", elastic_restarts, (), owner)
    return RunIdentity(uuid.uuid4().hex[:12], "local", 0, (), owner)


def is_global_zero(environ: Mapping[str, str] | None = None) -> bool:
    """Whether this process is rank 0 of its run, by the launcher's variables."""
    environ = os.environ if environ is None else environ
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if environ.get(name, "").isdigit():
            return int(environ[name]) == 0
    return True


def _safe(run_id: str) -> str:
    if not SAFE.fullmatch(run_id):
        raise ValueError(
            f"`run_id` must be at most 128 letters, digits, dots, dashes and underscores, "
            f"beginning with a letter or digit; got {run_id!r}."
        )
    return run_id


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a user database
        return str(os.getuid())


def slot_in_job() -> str:
    """Tells apart the runs of one job: which program, which step, which run of the process.

    A job that is started again runs the same programs in the same order.
    """
    program = [*sys.argv, os.environ.get("SLURM_STEP_ID", "")]
    return f"{zlib.crc32(chr(0).join(program).encode()):08x}-{next(_runs)}"
