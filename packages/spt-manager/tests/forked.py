"""Processes of their own, forked from one that has torch and Lightning loaded and does nothing else.

A start costs a fraction of a second, not the seconds that the imports take.
"""

import importlib
import multiprocessing
import os
import socket
import sys
import warnings
from pathlib import Path

HERE = str(Path(__file__).parent)
LOADED = [
    "lightning",
    "pytest",
    "spt_callbacks",
    "spt_manager.manager",
    "torchdata",
    "torchmetrics",
]


class Forked:
    """A process that calls a function of a module of this folder.

    Args:
        log: Where its output goes.
        module: The module's name.
        function: The function's name.
        *args: Its arguments.
        environ: Of the process, instead of this one's.
    """

    def __init__(self, log, module, function, *args, environ=None):
        if HERE not in sys.path:
            sys.path.insert(0, HERE)  # which the process inherits
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(LOADED)
        environ = dict(os.environ if environ is None else environ)
        given = (str(log), environ, module, function, args)
        self.log = Path(log)
        self.process = context.Process(target=call, args=given)
        self.process.start()

    def end(self):
        """Wait; the exit code, or minus the signal."""
        self.process.join(240)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"it hangs\n{self.output()}")
        return self.process.exitcode

    def output(self):
        """What it has printed."""
        return self.log.read_text() if self.log.exists() else ""


def call(log, environ, module, function, args):
    """The process: a session, an environment and an output of its own, then the function."""
    os.setsid()
    os.environ.clear()
    os.environ.update(environ)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    warnings.simplefilter("ignore")
    multiprocessing.set_start_method("fork", force=True)  # for the workers of loaders
    getattr(importlib.import_module(module), function)(*args)


def ranks(folder, module, function, *args, number=2):
    """As a launcher starts them: all ranks at once, with torchrun's variables; their processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SPT_"))}
    common = {
        **clean,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": "1",
        "TORCHELASTIC_RUN_ID": "forked",
        "GROUP_RANK": "0",
        "LOCAL_WORLD_SIZE": str(number),
        "WORLD_SIZE": str(number),
    }
    return [
        Forked(
            Path(folder) / f"log-{rank}",
            module,
            function,
            *args,
            environ={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(number)
    ]
