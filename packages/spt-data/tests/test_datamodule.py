"""The DataModule: ready loaders, mappings, and what is refused."""

import functools

import pytest
from spt_data import DataModule, FromTorchDataset, RepeatedRandomSampler
from torch.utils.data import DataLoader


def dataset(n=6):
    return FromTorchDataset([(float(i), i) for i in range(n)], names=["image", "label"])


def test_ready_loaders_are_used_as_they_are():
    train, val = DataLoader(dataset(), 2), DataLoader(dataset(), 3)
    data = DataModule(train=train, val=val)
    data.setup("fit")
    assert data.train_dataloader() is train
    assert data.val_dataloader() is val
    assert data.test_dataloader() == []


def test_mappings_become_resumable_loaders():
    data = DataModule(
        train={
            "dataset": {
                "_target_": "spt_data.FromTorchDataset",
                "dataset": [(i,) for i in range(8)],
                "names": ["x"],
            },
            "sampler": functools.partial(RepeatedRandomSampler, seed=1),
            "batch_size": 2,
        },
        val={"dataset": dataset(), "batch_size": 4},
    )
    data.setup("fit")
    loader = data.train_dataloader()
    assert isinstance(loader.sampler, RepeatedRandomSampler)
    batches = iter(loader)
    first = next(batches)["x"].tolist()
    state = loader.state_dict()
    rest = [batch["x"].tolist() for batch in batches]
    loader.load_state_dict(state)
    assert [batch["x"].tolist() for batch in loader] == rest
    assert sorted([*first, *(x for batch in rest for x in batch)]) == list(range(8))
    assert [len(batch["label"]) for batch in data.val_dataloader()] == [4, 2]


def test_each_split_stands_alone():
    data = DataModule(test=DataLoader(dataset(), 2))
    data.setup("test")
    assert len(data.test_dataloader()) == 3
    with pytest.raises(ValueError, match=r"Stage 'fit' needs `train`; DataModule has \['test'\]"):
        data.setup("fit")
    several = DataModule(val=[DataLoader(dataset(), 2), {"dataset": dataset(), "batch_size": 3}])
    several.setup("validate")
    assert [len(loader) for loader in several.val_dataloader()] == [3, 2]


def test_further_arguments_are_attributes():
    assert DataModule(train=DataLoader(dataset()), gpu_transform=dict).gpu_transform is dict


@pytest.mark.parametrize(
    ("splits", "kind", "message"),
    [
        ({}, ValueError, "at least one of `train`, `val`, `test` and `predict`"),
        ({"train": {"batch_size": 2}}, KeyError, "`train` needs the key 'dataset'"),
        ({"val": {"dataset": [1], "batchsize": 2}}, ValueError, r"`val` has \['batchsize'\]"),
        ({"train": 3}, TypeError, "`train` must be a DataLoader or a mapping .* got int"),
    ],
)
def test_mistakes_are_named(splits, kind, message):
    with pytest.raises(kind, match=message):
        DataModule(**splits)


def test_unknown_stages_and_targets_are_named():
    with pytest.raises(ValueError, match="`stage` must be one of .* got 'training'"):
        DataModule(train=DataLoader(dataset())).setup("training")
    wrong = DataModule(train={"dataset": {"_target_": "spt_data.Nothing"}})
    with pytest.raises(ValueError, match="nothing at `_target_` 'spt_data.Nothing'"):
        wrong.setup("fit")
    missing = DataModule(train={"dataset": {"_target_": "no_such_module.Nothing"}})
    with pytest.raises(ValueError, match="no module at `_target_` 'no_such_module.Nothing'"):
        missing.setup("fit")
