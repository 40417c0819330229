"""Ranks that are forked from a process which has torch and Lightning loaded: a start imports nothing."""

import multiprocessing
import os
import runpy
import socket
import sys
import traceback
import warnings
from pathlib import Path

HERE = str(Path(__file__).parent)
LOADED = ["datasets", "lightning", "spt_data", "torchdata.stateful_dataloader"]


def run_ranks(path, folder, number=2):
    """Call ``worker(rank, folder)`` of the file in each of as many processes; raise if one fails."""
    if HERE not in sys.path:
        sys.path.insert(0, HERE)  # which the processes inherit
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    places = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(number),
        "NODE_RANK": "0", "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    ranks = [
        context.Process(
            target=call,
            args=(
                str(path),
                str(folder),
                {**clean, **places, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            ),
        )
        for rank in range(number)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(240)
    codes = [process.exitcode for process in ranks]
    for process in ranks:
        process.kill()
    told = "\n".join(log.read_text() for log in sorted(Path(folder).glob("log-*")))
    assert codes == [0] * number, told


def call(path, folder, environ):
    """The process: an environment and an output of its own, then the function."""
    os.environ.clear()
    os.environ.update(environ)
    rank = int(environ["RANK"])
    log = os.open(f"{folder}/log-{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    warnings.simplefilter("ignore")
    multiprocessing.set_start_method("fork", force=True)  # for the workers of loaders
    try:
        runpy.run_path(path)["worker"](rank, folder)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # the threads of a broken group may wait for the other rank
