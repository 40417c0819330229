"""A real method with augmentation, probe and kNN, stopped and continued: nothing differs."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path

import lightning as pl
import pytest
import stable_pretraining as spt
import torch
from spt_callbacks import OnlineProbe
from spt_callbacks.queue import queues_of
from spt_manager import Stopped
from spt_manager.build import build_trainer
from spt_manager.launch import compose_file

ROOT = Path(__file__).resolve().parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*dataloader.*")]
BRIEF = [
    "dataset=sample",
    "batch_size=8",
    "module.backbone.model_name=resnet10t",
    "+trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "+trainer.limit_train_batches=3",
    "+trainer.limit_val_batches=2",
    "+trainer.log_every_n_steps=1",
    "+trainer.enable_progress_bar=false",
    "trainer.callbacks.1.queue_length=40",
]


class StopAt(pl.Callback):
    """Sends this process a signal in the middle of a batch."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, *args):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def byol():
    backbone = spt.backbone.from_timm("resnet10t", num_classes=0)
    return spt.methods.BYOL(backbone, (64, 32), (64, 32))


def start(method, run_id, stop=None):
    config = compose_file(ROOT / "examples" / "simclr_cifar10_config.yaml", BRIEF)

    def trainer():
        made, _ = build_trainer(config.trainer)
        if stop is not None:
            made.callbacks.append(StopAt(stop))
        return made

    module = byol if method == "byol" else config.module
    run = spt.Manager(trainer=trainer, module=module, data=config.data, seed=0, run_id=run_id)
    return run


def outcome(run):
    """All that the run leaves, flat: weights, teacher and probe, optimizer, queues, rows."""
    (probe,) = [c for c in run.trainer.callbacks if isinstance(c, OnlineProbe)]
    rings = queues_of(run.trainer).rings
    optimizer = run.trainer.optimizers[0].state_dict()["state"]
    tensors = {f"module.{name}": value for name, value in run.module.state_dict().items()}
    tensors |= {f"probe.{name}": value for name, value in probe.state_dict()["module"].items()}
    tensors |= {f"ring.{key}": ring.newest(ring.length) for key, ring in rings.items()}
    for i, state in optimizer.items():
        tensors |= {f"optimizer.{i}.{k}": v for k, v in state.items() if torch.is_tensor(v)}
    with (run.run_dir / "metrics.csv").open() as file:
        rows = [dict(sorted(row.items())) for row in csv.DictReader(file)]
    return tensors, rows


@pytest.mark.parametrize("method", ["simclr", "byol"])
def test_stopped_at_any_batch_it_comes_to_the_same(tmp_path, method):
    quiet = {"env_dump": False, "trainer_info": False, "module_summary": False}
    with spt.config_context(cache_dir=str(tmp_path / "cache"), default_callbacks=quiet):
        whole = start(method, "whole")
        whole()
        tensors, rows = outcome(whole)
        for stop in (2, 4):
            with pytest.raises(Stopped, match="preempted"):
                start(method, f"stopped{stop}", stop)()
            again = start(method, f"stopped{stop}")
            again()
            found, found_rows = outcome(again)
            assert found.keys() == tensors.keys()
            differing = [key for key in tensors if not torch.equal(found[key], tensors[key])]
            assert differing == [], f"stopped in batch {stop}"
            assert found_rows == rows
