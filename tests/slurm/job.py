"""The program of a SLURM job in these tests: a small training under the Manager.

Usage: python job.py OUT [--pause-at BATCH [--pause TASK ...]] [--die TASK ...]

On its first start it can wait for a signal in the middle of an epoch, or never come to train; TASK says
which tasks of an array do so.
"""

import argparse
import os
import signal
import time
from pathlib import Path

FIRST = os.environ.get("SLURM_RESTART_COUNT", "0") == "0"
TASK = os.environ.get("SLURM_ARRAY_TASK_ID", "0")


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--pause-at", type=int, default=-1)
    parser.add_argument("--pause", nargs="*", default=[TASK])
    parser.add_argument("--die", nargs="*", default=[])
    return parser.parse_args()


def wait_for_ever(note):
    note.touch()
    time.sleep(300)
    raise SystemExit("nothing came")


if __name__ == "__main__":
    args = arguments()
    if TASK in args.die and FIRST:
        wait_for_ever(args.out / f"dead-{TASK}")
    # a warning while torch is imported waits for the Manager, as it does under `spt`
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2})

import lightning as pl  # noqa: E402
import torch  # noqa: E402
from spt_manager import Manager  # noqa: E402
from spt_manager import set as set_config  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1))

    def training_step(self, batch, batch_idx):
        loss = self.body(batch).square().mean()
        self.log("fit/loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.05)


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        rows = torch.linspace(-1, 1, 96).reshape(24, 4)
        return DataLoader(rows, batch_size=4, shuffle=True, num_workers=1)


class Pause(pl.Callback):
    """Wait in the middle of a batch until this process was asked to stop."""

    def __init__(self, stops, at, note):
        self.stops, self.at, self.note = stops, at, note

    def on_train_batch_start(self, trainer, *args):
        if FIRST and trainer.global_step == self.at:
            self.note.touch()
            end = time.monotonic() + 300
            while self.stops.reason is None and time.monotonic() < end:
                time.sleep(0.05)


def main(args):
    torch.set_num_threads(1)
    set_config(
        cache_dir=str(args.out / "cache"),
        requeue_checkpoint_every_n_steps=2,
        default_callbacks={"env_dump": False},
    )
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=3, log_every_n_steps=1, enable_model_summary=False
    )
    run = Manager(trainer=trainer, module=Model, data=Data(), seed=3)
    if TASK in args.pause:
        trainer.callbacks.append(Pause(run._stops, args.pause_at, args.out / f"reached-{TASK}"))
    run()
    torch.save(run.module.state_dict(), args.out / f"weights-{TASK}.pt")


if __name__ == "__main__":
    main(args)
