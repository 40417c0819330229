"""What counts epochs says so where a stream has none."""

import lightning as pl
import pytest
import torch
from spt_methods.freeze import FrozenPrototypes
from spt_methods.methods import SwAV
from spt_methods.methods._temperature import teacher_temperature
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

pytestmark = pytest.mark.filterwarnings("ignore:.*dataloader.*", "ignore:.*num_workers.*")


class Stream(IterableDataset):
    """Numbers without end."""

    def __iter__(self):
        while True:
            yield torch.ones(4)


class Crops(IterableDataset):
    """Two large crops and a small one, without end."""

    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        while True:
            sizes = {"global_0": 32, "global_1": 32, "local_0": 16}
            yield {
                name: {"image": torch.rand(3, size, size, generator=generator)}
                for name, size in sizes.items()
            }


class Warming(pl.LightningModule):
    """A network whose teacher has a temperature."""

    def __init__(self, epochs):
        super().__init__()
        self.prototypes = nn.Linear(4, 2)
        self.warmup_temperature_teacher = 0.04
        self.temperature_teacher = 0.07
        self.warmup_epochs_temperature_teacher = epochs
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(teacher_temperature(self, 0.1))
        return self.prototypes(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(callbacks=(), **kwargs):
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **kwargs,
    )


def stream():
    return DataLoader(Stream(), batch_size=2)


def test_frozen_prototypes_of_a_stream():
    frozen = FrozenPrototypes(("prototypes",), epochs=1)
    with pytest.raises(ValueError, match="prototypes counts epochs.*limit_train_batches"):
        trainer([frozen], max_steps=3).fit(Warming(0), stream())
    module = Warming(0)
    before = module.prototypes.weight.detach().clone()
    trainer([frozen], max_steps=3, limit_train_batches=2).fit(module, stream())
    assert not torch.equal(module.prototypes.weight, before)  # they move in the second epoch
    trainer([FrozenPrototypes(("prototypes",), steps=1)], max_steps=3).fit(Warming(0), stream())


def test_the_temperature_over_a_stream():
    with pytest.raises(ValueError, match="temperature counts epochs.*limit_train_batches"):
        trainer(max_steps=3).fit(Warming(3), stream())
    module = Warming(3)
    trainer(max_steps=6, limit_train_batches=2).fit(module, stream())
    assert module.seen == pytest.approx([0.04, 0.04, 0.055, 0.055, 0.07, 0.07])
    module = Warming(0)
    trainer(max_steps=2).fit(module, stream())
    assert module.seen == [0.07, 0.07]


def test_the_queues_of_swav_over_a_stream():
    loader = DataLoader(Crops(), batch_size=4)

    def swav(start):
        return SwAV(
            "vit_tiny_patch16_224",
            image_size=32,
            batch_size=4,
            projector_dims=(8, 4),
            n_prototypes=6,
            queue_length=8,
            start_queue_at_epoch=start,
            freeze_prototypes_steps=0,
        )

    with pytest.raises(ValueError, match="queues counts epochs.*limit_train_batches"):
        trainer(max_steps=3).fit(swav(1), loader)
    for module, limits in ((swav(0), {}), (swav(1), {"limit_train_batches": 1})):
        trainer(max_steps=3, **limits).fit(module, loader)
        assert int(module.code_queues.filled) == 8
