"""Which SLURM job a run belongs to."""

from __future__ import annotations

import os

import lightning as pl
from rich.console import Console
from rich.table import Table

VARIABLES = (
    "SLURM_JOB_ID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_RESTART_COUNT",
    "SLURM_JOB_NAME",
    "SLURM_JOB_PARTITION",
    "SLURM_JOB_NODELIST",
    "SLURM_JOB_NUM_NODES",
    "SLURM_NTASKS",
    "SLURM_CPUS_PER_TASK",
    "SLURM_JOB_GPUS",
    "SLURM_MEM_PER_NODE",
    "SLURM_SUBMIT_DIR",
)


class SLURMInfo(pl.Callback):
    """Print the SLURM job on rank 0 and give ``slurm.job_id`` and ``slurm.task_id`` to the loggers.

    Outside of a SLURM job it does nothing.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Print and log."""
        job = slurm_job()
        if not job or not trainer.is_global_zero:
            return
        table = Table("variable", "value", title="SLURM")
        for name, value in job.items():
            table.add_row(name, value)
        Console(soft_wrap=True).print(table)
        ids = {"slurm.job_id": job["SLURM_JOB_ID"]}
        if "SLURM_ARRAY_TASK_ID" in job:
            ids["slurm.task_id"] = job["SLURM_ARRAY_TASK_ID"]
        for logger in trainer.loggers:
            logger.log_hyperparams(ids)


def slurm_job() -> dict[str, str]:
    """The variables that describe this process's job; empty outside of one."""
    if "SLURM_JOB_ID" not in os.environ:
        return {}
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}
