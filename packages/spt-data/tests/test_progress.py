"""Step and epoch of the Trainer in samples, and data modules from configurations."""

import copy

import lightning as pl
import pytest
import torch
from omegaconf import OmegaConf
from spt_data import DataModule, FromTorchDataset, Subset, get_num_workers
from spt_data.module import DictFormat
from torch.utils.data import DataLoader

pytestmark = pytest.mark.filterwarnings("ignore:.*no `validation_step`")


def rows(n=8, **options):
    return FromTorchDataset([(float(i),) for i in range(n)], ["x"], **options)


class Watcher(pl.LightningModule):
    """Notes what each batch says of step and epoch, and what the Trainer says."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.told = []

    def training_step(self, batch, batch_idx):
        step, epoch = (
            batch["global_step"].unique().tolist(),
            batch["current_epoch"].unique().tolist(),
        )
        self.told.append(
            (step, epoch) == ([self.trainer.global_step], [self.trainer.current_epoch])
        )
        return self.weight * batch["x"].mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Attach(pl.Callback):
    def setup(self, trainer, pl_module, stage):
        trainer.datamodule.set_pl_trainer(trainer)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("ready", [False, True])
def test_batches_tell_the_step_and_epoch_of_the_trainer(tmp_path, num_workers, ready):
    spec = {"dataset": Subset(rows(), range(8)), "batch_size": 2, "num_workers": num_workers}
    train = DataLoader(**spec, persistent_workers=num_workers > 0) if ready else spec
    module = Watcher()
    trainer = pl.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        callbacks=[Attach()],
    )  # fmt: skip
    trainer.fit(module, datamodule=DataModule(train=train))
    assert module.told == [True] * 12


class Stand:
    """The two numbers that are read of a Trainer."""

    global_step = 5
    current_epoch = 2


def test_samples_hold_them_and_a_column_of_that_name_is_refused():
    dataset = rows()
    dataset.set_pl_trainer(Stand())
    assert dataset[1] == {"x": 1.0, "sample_idx": 1, "global_step": 5, "current_epoch": 2}
    assert copy.deepcopy(dataset)[1]["global_step"] == 5
    clash = FromTorchDataset([(1,)], ["global_step"])
    clash.set_pl_trainer(Stand())
    with pytest.raises(ValueError, match=r"sample 0 has \['global_step'\], which the attached"):
        clash[0]
    assert rows().process_sample({"x": 1}, extra=2) == {"x": 1, "extra": 2}


def test_a_configuration_of_omegaconf_is_a_split():
    config = OmegaConf.create(
        {
            "train": {
                "dataset": {
                    "_target_": "spt_data.FromTorchDataset",
                    "dataset": [[1.0], [2.0], [3.0]],
                    "names": ["x"],
                },
                "sampler": {"_target_": "spt_data.RepeatedRandomSampler", "_partial_": True},
                "batch_size": "${size}",
            },
            "size": 2,
        }
    )
    data = DataModule(train=config.train)
    data.setup("fit")
    assert [len(batch["x"]) for batch in data.train_dataloader()] == [2, 1]


@pytest.mark.parametrize("val", [None, DataLoader(rows(), 2), {"dataset": rows(), "batch_size": 2}])
@pytest.mark.parametrize("train", [DataLoader(rows(), 2), {"dataset": rows(), "batch_size": 2}])
def test_any_two_forms_go_together(train, val):
    data = DataModule(train=train, val=val)
    data.setup("fit")
    assert len(list(data.train_dataloader())) == 4
    assert len(list(data.val_dataloader())) == (0 if val is None else 4)


def test_a_gpu_transform_with_parameters_survives_the_module_and_its_copies():
    transform = torch.nn.Linear(1, 1)
    data = DataModule(train={"dataset": rows(gpu_transform=transform), "batch_size": 2})
    data.setup("fit")
    assert data.train_dataloader().dataset.gpu_transform is transform
    assert copy.deepcopy(rows(gpu_transform=transform)).gpu_transform.weight.shape == (1, 1)


def test_small_helpers():
    assert 1 <= get_num_workers() <= 4096
    assert DictFormat([(1, 2)], ["a", "b"])[0] == {"a": 1, "b": 2}


def test_limited_epochs_resume_at_their_end(tmp_path):
    """A checkpoint at the end of an epoch that was cut short goes on with the next one."""

    def fit(ckpt=None, stop=None):
        seen = []

        class Noting(Watcher):
            def training_step(self, batch, batch_idx):
                seen.append(batch["x"].tolist())
                return self.weight * batch["x"].mean()

            def on_train_epoch_end(self):
                if self.trainer.current_epoch == stop:
                    self.trainer.save_checkpoint(tmp_path / "end.ckpt")

        trainer = pl.Trainer(
            max_epochs=3, limit_train_batches=3, accelerator="cpu", logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=tmp_path,
        )  # fmt: skip
        torch.manual_seed(0)
        spec = {"dataset": rows(12), "batch_size": 2, "seed": 1}
        trainer.fit(Noting(), datamodule=DataModule(train=spec), ckpt_path=ckpt)
        return seen

    whole = fit(stop=0)
    assert fit(ckpt=tmp_path / "end.ckpt") == whole[3:]
