"""Mistakes of the first hour: each error says what came, what is expected and what is there."""

from __future__ import annotations

import lightning as pl
import pytest
import stable_pretraining as spt
import torch
from torch import nn
from torch.utils.data import DataLoader


class Rows(torch.utils.data.Dataset):
    """A few labelled random images, as dicts."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return {"image": torch.rand(1, 4, 4, generator=generator), "label": index % 2}


def classify(self, batch, stage):
    embedding = self.backbone(batch["image"])
    loss = nn.functional.cross_entropy(self.classifier(embedding), batch["label"])
    return {"embedding": embedding, "label": batch["label"], "loss": loss}


def module(forward=classify, **kwargs):
    parts = {
        "backbone": nn.Sequential(nn.Flatten(), nn.Linear(16, 8)),
        "classifier": nn.Linear(8, 2),
    }
    return spt.Module(forward=forward, **parts, **kwargs)


def data():
    return spt.data.DataModule(train=DataLoader(Rows(), 4), val=DataLoader(Rows(), 4))


def trainer(tmp_path, *callbacks, **kwargs):
    settings = {"max_epochs": 1, "log_every_n_steps": 1, "accelerator": "cpu"}
    return pl.Trainer(
        default_root_dir=tmp_path,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **{**settings, **kwargs},
    )


def plain_trainer(tmp_path, *callbacks):
    return trainer(tmp_path, *callbacks, logger=False, enable_checkpointing=False)


def test_a_missing_key_names_the_callback_and_the_keys_present(tmp_path):
    probe = spt.OnlineProbe(
        name="probe",
        input="embeding",
        target="label",
        probe=nn.Linear(8, 2),
        loss=nn.CrossEntropyLoss(),
    )
    with pytest.raises((KeyError, ValueError), match="embeding") as error:
        plain_trainer(tmp_path, probe).fit(module(), data())
    message = str(error.value)
    for word in ("probe", "embedding", "image", "label"):
        assert word in message


def test_a_forward_without_a_loss_names_what_it_returned(tmp_path):
    def forward(self, batch, stage):
        return {"embedding": self.backbone(batch["image"]), "los": torch.zeros(())}

    with pytest.raises((KeyError, ValueError), match="'loss'") as error:
        plain_trainer(tmp_path).fit(module(forward), data())
    assert "embedding" in str(error.value)
    assert "los" in str(error.value)


def test_a_data_module_without_loaders_is_refused():
    with pytest.raises(ValueError, match="train"):
        spt.data.DataModule()


def test_a_cache_dir_that_cannot_be_written_is_refused_before_training(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    with (
        spt.config_context(cache_dir=str(blocked / "runs")),
        pytest.raises(OSError, match=r"file.runs"),
    ):
        spt.Manager(trainer=trainer(tmp_path), module=module(), data=data())()


def test_an_unknown_optimizer_names_its_neighbours(tmp_path):
    wrong = module(optim={"optimizer": {"type": "AdamWW"}})
    with pytest.raises(ValueError, match=r"AdamWW.*did you mean.*AdamW"):
        plain_trainer(tmp_path).fit(wrong, data())


def test_a_corrupt_checkpoint_is_set_aside_and_training_goes_on(tmp_path):
    def run(epochs):
        watched = module()
        manager = spt.Manager(
            trainer=trainer(tmp_path, max_epochs=epochs),
            module=watched,
            data=data(),
            run_id="same",
            seed=0,
        )
        manager()
        return manager

    with spt.config_context(cache_dir=str(tmp_path / "cache")):
        first = run(2)
        (last,) = (tmp_path / "cache").rglob("last.ckpt")
        content = last.read_bytes()
        last.write_bytes(content[: len(content) // 2])
        kept = sorted(path.name for path in last.parent.iterdir())
        again = run(4)
    assert again.run_dir == first.run_dir
    assert again.trainer.current_epoch == 4
    names = {path.name for path in last.parent.iterdir()}
    assert set(kept) - {"last.ckpt"} <= names, "nothing is deleted"
    assert any("corrupt" in name for name in names), names
    assert torch.load(last, weights_only=True)["epoch"] == 4
