"""What the configurations of the tests name."""

import lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader


class Model(pl.LightningModule):
    def __init__(self, width, head=None, api_key=None):
        super().__init__()
        self.layer = nn.Linear(4, width)
        self.head = head or nn.Identity()

    def training_step(self, batch, batch_idx):
        embedding = self.layer(batch["x"])
        loss = self.head(embedding).square().mean()
        self.log("fit/loss", loss)
        return {"loss": loss, "embedding": embedding}

    def validation_step(self, batch, batch_idx):
        return {"embedding": self.layer(batch["x"])}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, i):
        return {"x": torch.full((4,), i / 8)}


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(Rows(), batch_size=4)

    val_dataloader = train_dataloader


class Mark(pl.Callback):
    """A callback that is made of the module."""

    def __init__(self, module, word="seen"):
        self.module, self.word = module, word

    def on_train_start(self, trainer, pl_module):
        assert pl_module is self.module
        pl_module.logger.experiment.add_tags(self.word)
