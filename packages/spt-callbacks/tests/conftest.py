"""A LightningModule that is not ours, its data and its Trainer."""

import lightning as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader


def samples(n=48, seed=0):
    """Three separable classes."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.eye(3, 8) * 4
    rows = [centres[i % 3] + torch.randn(8, generator=generator) for i in range(n)]
    return [{"x": x, "label": i % 3, "y": i % 3, "sample_idx": i} for i, x in enumerate(rows)]


class PlainModule(pl.LightningModule):
    """Dropout makes its course depend on the global random state; a step sees two noisy views."""

    def __init__(self, manual=False):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 6), nn.Dropout(0.2))
        self.head = nn.Linear(6, 8)
        self.automatic_optimization = not manual

    def training_step(self, batch, batch_idx):
        x = torch.cat([batch["x"], batch["x"] + 0.1])
        embedding = self.encoder(x)
        loss = (self.head(embedding) - x).square().mean()
        if not self.automatic_optimization:
            self.optimizers().zero_grad()
            self.manual_backward(loss)
            self.optimizers().step()
        return {"loss": loss, "embedding": embedding, "label": batch["label"].repeat(2)}

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        return {"embedding": self.encoder(batch["x"])}

    test_step = validation_step
    predict_step = validation_step

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


@pytest.fixture(autouse=True)
def seeded():
    """Every test begins at one random state."""
    torch.manual_seed(0)


@pytest.fixture
def plain():
    """The class of the module."""
    return PlainModule


@pytest.fixture
def make_samples():
    """Makes samples of three separable classes."""
    return samples


@pytest.fixture
def loaders():
    """A training loader and a validation loader."""
    train = DataLoader(samples(), 8, shuffle=True, generator=torch.Generator().manual_seed(0))
    return train, DataLoader(samples(24, seed=1), 8)


@pytest.fixture
def make_trainer(tmp_path):
    """Makes a quiet Trainer on the CPU."""

    def make(callbacks=(), **kwargs):
        settings = {"max_epochs": 2, "logger": False, "enable_checkpointing": False, **kwargs}
        return pl.Trainer(
            accelerator="cpu",
            callbacks=list(callbacks),
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
            **settings,
        )

    return make
