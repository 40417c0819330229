"""A callback of the user's own with a network, and the helpers to write one."""

from collections import namedtuple

import pytest
import torch
import torchmetrics
from spt_callbacks import TrainableCallback
from spt_callbacks.utils import (
    detach_tensors,
    format_metrics_as_dict,
    get_data_from_batch_or_outputs,
)
from torch import nn
from torch.utils.data import DataLoader

pytestmark = pytest.mark.filterwarnings("ignore:.*dataloader.*")


class Regressor(TrainableCallback):
    """Predicts the class as a number, from the embedding."""

    def configure_model(self, pl_module):
        return nn.Linear(6, 1)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        x, y = get_data_from_batch_or_outputs(("embedding", "label"), batch, outputs, self.caller)
        with torch.enable_grad(), self.isolated(x.device):
            loss = (self.module(x.detach())[:, 0] - y).square().mean()
            self.descend(loss, flush=trainer.is_last_batch)


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_a_callback_of_ones_own_trains_beside_the_run_and_resumes(
    plain, make_samples, make_trainer, tmp_path
):
    loader = DataLoader(make_samples(), 8)
    torch.manual_seed(0)
    bare = plain()
    make_trainer([], max_epochs=2).fit(bare, loader)

    torch.manual_seed(0)
    watched, own = plain(), Regressor(name="own", optimizer={"type": "SGD", "lr": 0.05})
    trainer = make_trainer([own], max_epochs=2)
    trainer.fit(watched, loader)
    assert torch.equal(weights(watched), weights(bare))
    assert own.head.steps > 0
    assert own.module not in list(watched.modules())

    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = Regressor(name="own", optimizer={"type": "SGD", "lr": 0.05})
    make_trainer([again], max_epochs=2).fit(plain(), loader, ckpt_path=tmp_path / "a.ckpt")
    assert torch.equal(weights(again.module), weights(own.module))
    assert again.head.steps == own.head.steps
    assert own.state_key == "Regressor[name=own]"


def test_it_must_say_what_its_network_is(plain, loaders, make_trainer):
    with pytest.raises(NotImplementedError, match="TrainableCallback must implement `configure_m"):
        make_trainer([TrainableCallback()], max_epochs=1).fit(plain(), *loaders)


def test_values_are_sought_in_the_outputs_and_then_in_the_batch():
    batch, outputs = {"label": 1, "loss": 9}, {"loss": 2}
    assert get_data_from_batch_or_outputs("loss", batch, outputs) == 2
    assert get_data_from_batch_or_outputs(["label", "loss"], batch, outputs) == [1, 2]
    assert get_data_from_batch_or_outputs(lambda outs, _: outs["loss"] + 1, batch, outputs) == 3
    with pytest.raises(KeyError, match="Mine needs the key 'labels'.*'loss'.*'label'"):
        get_data_from_batch_or_outputs("labels", batch, outputs, "Mine")


def test_tensors_are_detached_at_any_depth():
    pair = namedtuple("pair", "a b")
    x = torch.ones(2, requires_grad=True) * 2
    found = detach_tensors({"views": [pair(x, 3), (x,)], "name": "n"})
    assert x.requires_grad
    assert not found["views"][0].a.requires_grad
    assert not found["views"][1][0].requires_grad
    assert (found["views"][0].b, found["name"]) == (3, "n")
    assert isinstance(found["views"][0], pair)


@pytest.mark.parametrize(
    ("given", "train", "val"),
    [
        (None, [], []),
        ("one", [], ["MeanMetric"]),
        ("list", [], ["MeanMetric"]),
        ("named", [], ["m"]),
        ("staged", ["m"], ["MeanMetric"]),
    ],
)
def test_metrics_in_every_form(given, train, val):
    metric = torchmetrics.MeanMetric()
    forms = {
        None: None,
        "one": metric,
        "list": [metric],
        "named": {"m": metric},
        "staged": {"train": {"m": metric}, "val": [metric]},
    }
    found = format_metrics_as_dict(forms[given])
    assert (list(found["_train"]), list(found["_val"])) == (train, val)
    if given == "staged":  # one instance given twice counts two stages apart
        found["_train"]["m"].update(1.0)
        assert found["_val"]["MeanMetric"].update_count == 0
