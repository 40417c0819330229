"""The logger in a Lightning run."""

import json

import pytest

pl = pytest.importorskip("lightning")
import torch  # noqa: E402
from spt_registry import RegistryLogger  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*dataloader.*")


class Tiny(pl.LightningModule):
    def __init__(self, lr=0.1):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).square().mean()
        self.log("loss", loss)
        if self.hparams.lr == 0:
            raise RuntimeError("no rate")
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


def fit(folder, logger, module, **kwargs):
    pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=logger,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **kwargs,
    ).fit(module, DataLoader(torch.randn(8, 2), batch_size=4))


def test_a_run_is_recorded(tmp_path):
    logger = RegistryLogger(tags=["t"])
    logger.attach(tmp_path / "run", "r1", tags=["u"])
    fit(tmp_path, logger, Tiny())
    state = json.loads((tmp_path / "run" / "sidecar.json").read_text())
    assert (state["run_id"], state["status"], state["tags"]) == ("r1", "completed", ["t", "u"])
    assert state["hparams"] == {"lr": 0.1}
    assert state["summary"]["loss"] >= 0
    assert state["last_checkpoint_path"] is None or state["last_checkpoint_path"]
    assert (tmp_path / "run" / "metrics.csv").read_text().count("\n") == 5


def test_a_failure_is_recorded(tmp_path):
    logger = RegistryLogger(tmp_path / "run")
    with pytest.raises(RuntimeError, match="no rate"):
        fit(tmp_path, logger, Tiny(lr=0.0), enable_checkpointing=False)
    assert json.loads((tmp_path / "run" / "sidecar.json").read_text())["status"] == "failed"


def test_what_the_user_gave_is_kept(tmp_path):
    logger = RegistryLogger(tmp_path / "mine", "mine")
    logger.attach(tmp_path / "other", "other")
    assert (logger.run_dir.name, logger.run_id) == ("mine", "mine")
