"""Jobs of a real SLURM: preempted, requeued, cancelled, killed; the outcome is that of no such thing."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("job.py")
SCRIPT = """\
#!/bin/bash
#SBATCH --requeue --open-mode=append --output={folder}/out-%a.log
export OMP_NUM_THREADS=1
exec {python} {program} {folder} "$@"
"""


class Job:
    """A job of the small training, and what it leaves behind."""

    def __init__(self, slurm, folder, sbatch=(), arguments=()):
        script = folder / "job.sh"
        script.write_text(SCRIPT.format(folder=folder, python=sys.executable, program=PROGRAM))
        self.slurm, self.folder = slurm, folder
        text = slurm.run("sbatch", "--parsable", *sbatch, str(script), *map(str, arguments))
        self.id = text.partition(";")[0]

    def wait_for_file(self, name):
        there = (self.folder / name).exists
        self.slurm.wait_for(lambda: there() or self.has_ended(), name, 120)
        assert there(), f"job {self.id} ended without {name}\n{self.log()}"

    def has_ended(self, task=None):
        name = self.id if task is None else f"{self.id}_{task}"
        return self.slurm.state(name) in FINAL

    def end(self):
        self.slurm.wait_for_end(self.id)
        return self.slurm.state(self.id)

    def waits_for_its_next_start(self):
        shown = self.slurm.run("scontrol", "-o", "show", "job", self.id)
        return "JobState=PENDING" in shown and "Restarts=0" not in shown

    def log(self):
        return "\n".join(path.read_text() for path in self.folder.glob("out-*.log"))

    def runs(self):
        """Sidecars, by run id."""
        found = [json.loads(p.read_text()) for p in self.folder.rglob("sidecar.json")]
        return {state["run_id"]: state for state in found}

    def assert_as_if_nothing_had_happened(self, whole, tasks=("0",)):
        assert self.end() == "COMPLETED", self.log()
        for task in tasks:
            weights = torch.load(self.folder / f"weights-{task}.pt", weights_only=True)
            assert all(torch.equal(weights[key], whole[key]) for key in whole), f"task {task}"
        assert len(self.runs()) == len(tasks)
        for run in self.runs().values():
            assert run["status"] == "completed"
            with (Path(run["run_dir"]) / "metrics.csv").open() as file:
                steps = [int(row["step"]) for row in csv.DictReader(file)]
            assert steps == list(range(18))


@pytest.fixture(scope="module", autouse=True)
def warned(slurm, tmp_path_factory):
    """A job with a short limit: SLURM's warning, which may take a minute, comes meanwhile."""
    limit = ["--time=1", "--signal=B:USR1@55"]
    folder = tmp_path_factory.mktemp("warned")
    return Job(slurm, folder, sbatch=limit, arguments=["--pause-at", 5])


@pytest.fixture(scope="module")
def whole(tmp_path_factory, slurm):
    """The weights of a run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    environ = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    command = [sys.executable, str(PROGRAM), str(folder)]
    subprocess.run(command, env={**environ, "OMP_NUM_THREADS": "1"}, check=True, timeout=120)
    return torch.load(folder / "weights-0.pt", weights_only=True)


def test_requeued_in_the_middle_of_an_epoch(slurm, tmp_path, whole):
    job = Job(slurm, tmp_path, arguments=["--pause-at", 9])
    job.wait_for_file("reached-0")
    slurm.run("scontrol", "requeue", job.id)
    job.assert_as_if_nothing_had_happened(whole)
    (run,) = job.runs().values()
    assert run["run_id"] == job.id
    assert [attempt["status"] for attempt in run["attempts"]] == ["preempted", "completed"]


def test_an_array_shares_a_cache_dir(slurm, tmp_path, whole):
    """Task 1 is killed without a warning, 2 is warned, 3 dies before it comes to train."""
    disturbed = ["--pause-at", 7, "--pause", 1, 2, "--die", 3]
    job = Job(slurm, tmp_path, sbatch=["--array=1-3"], arguments=disturbed)
    for name in ("reached-1", "reached-2", "dead-3"):
        job.wait_for_file(name)
    slurm.run("scancel", "--signal=USR1", "--full", f"{job.id}_2")
    slurm.run("scancel", "--signal=KILL", "--full", f"{job.id}_1")
    slurm.run("scontrol", "requeue", f"{job.id}_3")
    slurm.wait_for(lambda: job.has_ended(1), "the end of a killed task")
    slurm.run("scontrol", "requeue", f"{job.id}_1")
    job.assert_as_if_nothing_had_happened(whole, tasks="123")
    assert all(f"sweep:{job.id}" in run["tags"] for run in job.runs().values())
    attempts = {run_id[-2:]: len(run["attempts"]) for run_id, run in job.runs().items()}
    assert attempts == {"_1": 2, "_2": 2, "_3": 1}


def test_warned_before_the_time_limit_it_requeues_itself(slurm, warned, whole):
    """With so short a limit the warning may come at any time, while torch is imported too."""
    job = warned
    slurm.wait_for(lambda: job.waits_for_its_next_start() or job.has_ended(), "a requeue", 150)
    if not job.has_ended():
        slurm.run("scontrol", "update", f"JobId={job.id}", "TimeLimit=30")
    job.assert_as_if_nothing_had_happened(whole)
    assert "SLURM was asked to start this job again" in job.log()
    (run,) = job.runs().values()
    *stops, end = [attempt["status"] for attempt in run["attempts"]]
    assert (set(stops), end) == ({"preempted"}, "completed")


def test_cancelled_it_saves_and_stays_away(slurm, tmp_path):
    job = Job(slurm, tmp_path, arguments=["--pause-at", 4])
    job.wait_for_file("reached-0")
    slurm.run("scancel", job.id)
    assert job.end() == "CANCELLED", job.log()
    (run,) = job.runs().values()
    assert run["status"] == "preempted"
    last = Path(run["run_dir"]) / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 5
    assert "left alone" in job.log()


def test_a_sweep_from_yaml_is_an_array_of_jobs(slurm, tmp_path):
    """`spt CONFIG -m` with submitit's launcher, as in the example."""
    root = PROGRAM.parents[2]
    brief = ["dataset=sample", "batch_size=16", "+trainer.accelerator=cpu"]
    brief += ["module.backbone.model_name=resnet10t"]
    brief += ["trainer.max_epochs=1", "+trainer.limit_train_batches=2"]
    brief += ["+trainer.limit_val_batches=1", "+trainer.log_every_n_steps=1"]
    launcher = {"gpus_per_node": "null", "cpus_per_task": 1, "mem_gb": 1, "timeout_min": 10}
    launcher["submitit_folder"] = str(tmp_path / "submitit")
    options = [f"hydra.launcher.{key}={value}" for key, value in launcher.items()]
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("spt")),
            str(root / "examples" / "simclr_cifar10_slurm.yaml"),
            "-m",
            "lr=0.02,0.05",
            *brief,
            *options,
        ],
        env={**slurm.environ, "SPT_CACHE_DIR": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    runs = [json.loads(p.read_text()) for p in (tmp_path / "cache").rglob("sidecar.json")]
    assert {run["hparams"]["lr"] for run in runs} == {0.02, 0.05}
    assert {run["status"] for run in runs} == {"completed"}
    assert len({tag for run in runs for tag in run["tags"] if tag.startswith("sweep:")}) == 1
    assert {run["run_id"].partition("_")[2] for run in runs} == {"0", "1"}
