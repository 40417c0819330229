"""Which transform a batch gets in a Lightning run."""

from types import SimpleNamespace

import pytest
import torch
from spt_augment import (
    GPURandomResizedCrop,
    GPUTransformMixin,
    apply_gpu_transform,
    find_gpu_transform,
    resolve,
)
from torch.utils.data import DataLoader, Dataset, Subset

pl = pytest.importorskip("lightning")
pytestmark = pytest.mark.filterwarnings("ignore:.*train_dataloader.*", "ignore:.*val_dataloader.*")


class Images(Dataset):
    def __init__(self, gpu_transform=None):
        self.gpu_transform = gpu_transform

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {"image": torch.full((3, 6, 6), index / 4)}


class Watch(GPUTransformMixin, pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(("train", batch.get("by")))
        self.last = batch["image"]
        return self.layer(batch["image"].mean()[None]).sum()

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.seen.append(("val", batch.get("by")))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Data(pl.LightningDataModule):
    def __init__(self, train, val, gpu_transform=None):
        super().__init__()
        self.loaders = train, val
        if gpu_transform is not None:
            self.gpu_transform = gpu_transform

    def train_dataloader(self):
        return self.loaders[0]

    def val_dataloader(self):
        return self.loaders[1]


def mark(name):
    return lambda batch: {**batch, "by": name}


def fit(tmp_path, data, module=None, **kwargs):
    module = module or Watch()
    settings = {"max_epochs": 1, "num_sanity_val_steps": 1, **kwargs}
    pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        **settings,
    ).fit(module, data)
    return module


def loader(transform=None, wrap=lambda dataset: dataset):
    return DataLoader(wrap(Images(transform)), batch_size=2)


def test_the_data_set_wins_over_the_data_module(tmp_path):
    data = Data(loader(mark("dataset")), loader(), mark("datamodule"))
    seen = set(fit(tmp_path, data).seen)
    assert seen == {("train", "dataset"), ("val", "datamodule")}


def test_a_data_module_may_choose_by_stage_in_either_spelling(tmp_path):
    both = Data(loader(), loader(), {"fit": mark("a"), "val": mark("b")})
    assert set(fit(tmp_path, both).seen) == {("train", "a"), ("val", "b")}
    train_only = Data(loader(), loader(), {"train": mark("a")})
    assert set(fit(tmp_path, train_only).seen) == {("train", "a"), ("val", None)}
    wrong = Data(loader(), loader(), {"trian": mark("a")})
    with pytest.raises(ValueError, match=r"has the keys \['trian'\]; a key must be one of"):
        fit(tmp_path, wrong)


def test_a_batch_without_a_transform_makes_no_generator(tmp_path, monkeypatch):
    made = []
    drawing = resolve.drawing
    monkeypatch.setattr(resolve, "drawing", lambda *key: made.append(key[2]) or drawing(*key))
    assert set(fit(tmp_path, Data(loader(mark("dataset")), loader())).seen) == {
        ("train", "dataset"),
        ("val", None),
    }
    assert made == ["train"] * 2


def test_wrapped_data_sets_are_looked_into(tmp_path):
    wrapped = loader(mark("inner"), lambda dataset: Subset(dataset, [0, 1]))
    joined = loader(mark("inner"), lambda d: torch.utils.data.ConcatDataset([d, Subset(d, [1])]))
    assert set(fit(tmp_path, Data(wrapped, joined)).seen) == {("train", "inner"), ("val", "inner")}


class Several(Watch):
    """Takes a batch of several loaders."""

    def training_step(self, batch, batch_idx):
        parts = batch.values() if isinstance(batch, dict) else batch
        self.seen.append(("train", tuple(part.get("by") for part in parts)))
        return self.layer(torch.ones(1)).sum()


def test_each_of_several_training_loaders_has_its_own(tmp_path):
    named = {"a": loader(mark("a")), "b": loader(mark("b"))}
    seen = fit(tmp_path, Data(named, loader()), Several()).seen
    assert ("train", ("a", "b")) in seen
    listed = [loader(mark("a")), loader()]
    seen = fit(tmp_path, Data(listed, loader(), {"train": mark("module")}), Several()).seen
    assert ("train", ("a", "module")) in seen


def test_joined_data_sets_that_disagree_are_refused(tmp_path):
    join = torch.utils.data.ConcatDataset
    joined = loader(mark("a"), lambda d: join([d, Images(mark("b"))]))
    with pytest.raises(
        ValueError, match="Joined data sets .* have different `gpu_transform`s, 0 of"
    ):
        fit(tmp_path, Data(joined, loader()))
    only_one = loader(mark("a"), lambda d: join([d, Images()]))
    with pytest.raises(ValueError, match="have different `gpu_transform`s, 1 of 2 none"):
        fit(tmp_path, Data(only_one, loader()))
    one = mark("same")
    agreed = loader(one, lambda d: join([d, Images(one)]))
    assert ("train", "same") in fit(tmp_path, Data(agreed, loader())).seen


def test_a_transform_with_parameters_reaches_the_device(tmp_path):
    class Scale(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3))

        def forward(self, batch):
            return {**batch, "by": "scale"}

    assert ("train", "scale") in fit(tmp_path, Data(loader(Scale()), loader())).seen


def test_no_transform_leaves_the_batch_alone(tmp_path):
    assert set(fit(tmp_path, Data(loader(), loader())).seen) == {("train", None), ("val", None)}
    batch = {"image": torch.ones(1)}
    assert apply_gpu_transform(Watch(), batch) is batch


def test_each_step_draws_anew_and_a_second_run_repeats(tmp_path):
    torch.manual_seed(3)
    crop = GPURandomResizedCrop(4, scale=(0.1, 0.5))
    seen = []

    def chain(batch):
        x = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
        out = crop({**batch, "image": x})
        seen.append(out["image"])
        return out

    fit(tmp_path, Data(loader(chain), loader()), max_epochs=2)
    first = list(seen)
    for i, one in enumerate(first):
        for other in first[:i]:
            assert not torch.equal(one, other)

    fit(tmp_path, Data(loader(chain), loader()), max_epochs=2)
    assert all(torch.equal(a, b) for a, b in zip(first, seen[len(first) :], strict=True))


def test_a_transform_on_the_module_is_refused(tmp_path):
    module = Watch()
    module.gpu_transform = mark("module")
    with pytest.raises(RuntimeError, match="Watch has a `gpu_transform`; it belongs to the data"):
        fit(tmp_path, Data(loader(), loader()), module)


def test_what_cannot_be_called_is_refused(tmp_path):
    with pytest.raises(TypeError, match="`gpu_transform` of Images must be callable, got str"):
        fit(tmp_path, Data(loader("crop"), loader()))


def test_samples_that_a_list_holds_are_not_looked_into():
    """That would be a walk through the data set for every batch."""

    class Sample(dict):
        @property
        def gpu_transform(self):
            raise AssertionError("a sample was asked for its transform")

    samples = [Sample(image=torch.zeros(1)) for _ in range(3)]
    trainer = SimpleNamespace(datamodule=None)
    for held in (samples, tuple(samples), dict(enumerate(samples))):
        loader = SimpleNamespace(dataset=SimpleNamespace(dataset=held))
        assert find_gpu_transform(trainer, "train", loader) is None
        assert find_gpu_transform(trainer, "train", SimpleNamespace(dataset=held)) is None
