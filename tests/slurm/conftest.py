"""A real SLURM of one node, started by the tests and stopped after them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "scancel")
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")

CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={place}/munge/socket
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobRequeue=1
KillWait=60
MinJobAge=3600
SchedulerParameters=sched_interval=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
"""


class Slurm:
    """The daemons of a cluster of one node, and what a user types.

    Args:
        place: Holds configuration, keys, state and logs.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.environ = {**os.environ, "SLURM_CONF": str(place / "slurm.conf")}
        for name in [
            key for key in self.environ if key.startswith("SLURM_") and key != "SLURM_CONF"
        ]:
            del self.environ[name]

    def start(self) -> None:
        """Start munged, slurmctld and slurmd, and wait for the node."""
        self._start_munged()
        for folder in ("state", "spool"):
            (self.place / folder).mkdir()
        conf = CONF.format(
            host=socket.gethostname().split(".")[0],
            place=self.place,
            ports=[_free_port(), _free_port()],
            cpus=os.cpu_count(),
        )
        (self.place / "slurm.conf").write_text(conf)
        for daemon in ("slurmctld", "slurmd"):
            self.run(daemon)
        self.wait_for(lambda: "idle" in self.run("sinfo", "-h", "-o", "%T"), "an idle node")

    def _start_munged(self) -> None:
        home = self.place / "munge"
        home.mkdir()
        (home / "key").write_bytes(os.urandom(1024))
        (home / "key").chmod(0o400)
        for path in (home, home / "key"):
            shutil.chown(path, "munge", "munge")
        files = [
            "--socket",
            "socket",
            "--pid-file",
            "pid",
            "--log-file",
            "log",
            "--key-file",
            "key",
        ]
        options = [f"{a}={home / b}" for a, b in zip(files[::2], files[1::2], strict=True)]
        options.append(f"--seed-file={home / 'seed'}")
        subprocess.run(["munged", *options], check=True, user="munge", group="munge")

    def stop(self) -> None:
        """Cancel what still runs, and stop the daemons by their pid files."""
        for job in self.run("squeue", "-h", "-o", "%A").split():
            self.run("scancel", "--signal=KILL", "--full", job)
            self.run("scancel", job)
        try:  # steps that outlive their daemon would stay for ever
            self.wait_for(lambda: not self.run("squeue", "-h"), "an empty queue")
        finally:
            for name in ("slurmctld.pid", "slurmd.pid", "munge/pid"):
                path = self.place / name
                if path.exists():
                    os.kill(int(path.read_text()), 15)

    def run(self, *command: str) -> str:
        """Run a command and return what it printed."""
        done = subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """A job's state; of an array the one that is furthest from its end."""
        lines = self.run("scontrol", "-o", "show", "job", job).splitlines()
        states = [line.partition("JobState=")[2].split()[0] for line in lines]
        return next((state for state in states if state not in FINAL), states[0])

    def wait_for_end(self, *jobs: str, timeout_s: float = 180) -> None:
        """Wait until jobs have ended; one that was requeued is started at once, not after 2 min."""

        def ended() -> bool:
            states = {job: self.state(job) for job in jobs}
            for job, state in states.items():
                if state == "PENDING":
                    # it may have started meanwhile, which is as well
                    update = ["scontrol", "update", f"JobId={job}", "StartTime=now"]
                    subprocess.run(update, env=self.environ, capture_output=True, timeout=60)
            return all(state in FINAL for state in states.values())

        self.wait_for(ended, f"the end of {jobs}", timeout_s)

    def wait_for(self, condition, what: str, timeout_s: float = 60) -> None:
        """Wait for a condition.

        Raises:
            AssertionError: With the queue and the daemon's log, if it does not come true.
        """
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if condition():
                return
            time.sleep(0.25)
        log = (self.place / "slurmctld.log").read_text()[-3000:]
        raise AssertionError(f"waited {timeout_s} s for {what}\n{self.run('squeue')}\n{log}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """A running cluster; where SLURM is not installed the tests are skipped and say so."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        why = f"{missing} are not installed" if missing else "this is not root"
        pytest.skip(
            f"NO REAL SLURM IS TESTED: {why}. "
            "On Debian, as root: apt-get install -y slurm-wlm munge"
        )
    place = Path(tempfile.mkdtemp(prefix="spt-slurm-", dir="/tmp"))
    place.chmod(0o755)  # munged is another user
    cluster = Slurm(place)
    try:
        cluster.start()
        yield cluster
    finally:
        try:
            cluster.stop()
        finally:
            shutil.rmtree(place, ignore_errors=True)
