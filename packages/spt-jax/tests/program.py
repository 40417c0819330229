"""One run of a small network with dropout, BatchNorm, augmentation and every callback.

``python program.py CACHE_DIR OUT [key=value ...]`` trains under the Manager and writes the final state and the rows of
its metrics. ``kill=N`` sends SIGKILL after step N, ``signal=N`` SIGTERM after step N, ``validation=1`` SIGTERM
inside the first validation; ``devices=1`` splits batches over all devices; ``process=I port=P`` is process
I of two.
"""

import csv
import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import numpy as np
import spt_jax as spj
from flax import nnx
from spt_jax.flat_state import flat

import conftest as small


class Break(spj.Callback):
    """Ends the process, or asks it to stop, at a given moment."""

    def __init__(self, options):
        self.options = options

    def on_boundary(self, trainer, module):
        step, options = str(trainer.global_step), self.options
        if trainer.training and options.get("kill") == step:
            trainer.recorder.checkpoints.wait()
            os.kill(os.getpid(), signal.SIGKILL)
        if trainer.training and options.get("signal") == step:
            os.kill(os.getpid(), signal.SIGTERM)
        if not trainer.training and "validation" in options and trainer.current_epoch == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def forward(self, batch, stage):
    state = spj.forward.simclr(self, batch, stage)
    state["embedding"] = self.drop(state["embedding"])
    self.log("own/mean", state["embedding"].mean())
    return state


def build():
    module = small.simclr()
    made = {**module.settings.__dict__, "forward": forward}
    module.settings = module.settings.__class__(**made)
    module.drop = nnx.Dropout(0.3, rngs=nnx.Rngs(1))
    return module


def loaders(options):
    data = small.arrays(64)
    if "process" in options:  # each process loads its half of every batch
        start = 8 * int(options["process"])
        rows = np.concatenate([np.arange(i, i + 8) for i in range(start, 64, 16)])
        data = {name: value[rows] for name, value in data.items()}
        return spj.ArrayLoader(data, 8), spj.ArrayLoader(data, 8)
    if "devices" in options:
        return spj.ArrayLoader(data, 16), spj.ArrayLoader(data, 16)
    return spj.ArrayLoader(small.arrays(40), 16, shuffle=True), spj.ArrayLoader(
        small.arrays(22, seed=1), 16
    )


def train(cache_dir, **options):
    """Run; the arrays of the final state, and the table of its metrics."""
    stopping = spj.EarlyStopping("eval/knn_acc", "max", patience=100)
    trainer = spj.Trainer(
        max_epochs=2,
        callbacks=[*small.callbacks(), stopping, Break(options)],
        log_every_n_steps=2,
        progress=False,
        data_parallel="devices" in options or "process" in options,
    )
    manager = spj.Manager(
        trainer, build(), *loaders(options), cache_dir=cache_dir, run_id="run", save_every_n_steps=2
    )
    manager()
    with (manager.run_dir / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = sorted({name for row in rows for name in row})
    table = [[float(row[name] or "nan") for name in names] for row in rows]
    found = {"rows": np.asarray(table), "names": np.asarray(names)}
    return {**found, "steps": np.asarray(trainer.global_step), **flat(trainer.state)}


if __name__ == "__main__":
    options = dict(word.split("=") for word in sys.argv[3:])
    if "process" in options:
        import jax

        address = f"127.0.0.1:{options['port']}"
        jax.distributed.initialize(address, num_processes=2, process_id=int(options["process"]))
    arrays = train(sys.argv[1], **options)
    if options.get("process", "0") == "0":
        np.savez(sys.argv[2], **arrays)
