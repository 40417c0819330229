"""Two callbacks in a LightningModule that knows nothing of ours: `pip install spt-callbacks` is all it needs.

python examples/callback_in_lightning.py [--max-steps N]
"""

from __future__ import annotations

import argparse

import lightning as pl
import torch
from sklearn.datasets import load_digits
from spt_callbacks import OnlineProbe, RankMe
from torch import Tensor, nn
from torch.utils.data import DataLoader


class Autoencoder(pl.LightningModule):
    """An autoencoder of 8x8 digits; its steps return what the callbacks read."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 16)
        )
        self.decoder = nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 64))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Reconstruct, and return the code as well."""
        code = self.encoder(batch["image"])
        loss = (self.decoder(code) - batch["image"].flatten(1)).square().mean()
        return {"loss": loss, "embedding": code}

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """The code alone."""
        return {"embedding": self.encoder(batch["image"])}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def main(max_steps: int) -> dict[str, float]:
    """Train, and return the last metrics."""
    pl.seed_everything(0)
    digits = load_digits()
    images = torch.tensor(digits.images / 16, dtype=torch.float32)
    samples = [{"image": x, "label": int(y)} for x, y in zip(images, digits.target, strict=True)]
    module = Autoencoder()
    train = DataLoader(samples[:1500], batch_size=100, shuffle=True)
    test = DataLoader(samples[1500:], batch_size=100)
    trainer = pl.Trainer(
        max_steps=max_steps, logger=False, enable_checkpointing=False, log_every_n_steps=1,
        callbacks=[
            OnlineProbe(probe=nn.Linear(16, 10), loss=nn.CrossEntropyLoss()),
            RankMe(queue_length=1000),
        ],
    )  # fmt: skip
    trainer.fit(module, train, test)
    trainer.validate(module, test)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-steps", type=int, default=300)
    print(main(parser.parse_args().max_steps))
