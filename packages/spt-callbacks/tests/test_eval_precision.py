"""Mixed precision, loss scaling and compiled modules."""

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from spt_callbacks import LiDAR, OnlineKNN, OnlineProbe, OnlineProbeSweep, RankMe
from torch import nn
from torch.utils.data import DataLoader

pytestmark = pytest.mark.filterwarnings("ignore:.*dataloader.*")


def callbacks():
    torch.manual_seed(5)
    sgd = {"type": "SGD", "lr": 0.1}
    return [
        OnlineProbe(
            probe=nn.Linear(6, 3), loss=nn.CrossEntropyLoss(), optimizer=sgd, gradient_clip_val=0.2
        ),
        OnlineProbeSweep(num_outputs=3, rates=(1.0, 8.0)),
        OnlineKNN(queue_length=96, k=5),
        RankMe(queue_length=96),
        LiDAR(queue_length=96),
    ]


class Recorded(list):
    """The features and labels of each training step."""

    def watch(self, plain):
        steps = self

        class Watched(plain):
            def training_step(self, batch, batch_idx):
                state = super().training_step(batch, batch_idx)
                steps.append((state["embedding"].detach(), state["label"]))
                return state

        return Watched()


def trained_alone(steps, dtype):
    """The probe's training on recorded features."""
    torch.manual_seed(5)
    head = nn.Linear(6, 3).to(dtype)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    for features, labels in steps:
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(features.to(dtype)), labels).backward()
        nn.utils.clip_grad_norm_(head.parameters(), 0.2)
        optimizer.step()
    return head


def precision(kind):
    if kind == "16-mixed":
        return {"plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))]}
    return {"precision": kind}


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*")
@pytest.mark.parametrize("kind", ["bf16-mixed", "16-mixed", "64-true", "bf16-true"])
def test_probes_are_trained_in_their_own_type_and_clipped_on_true_gradients(
    plain, loaders, make_trainer, kind
):
    if kind == "64-true":
        loaders = [
            DataLoader([{**s, "x": s["x"].double()} for s in loader.dataset], 8)
            for loader in loaders
        ]
    steps = Recorded()
    watched = callbacks()
    if kind == "64-true":
        watched[0].module.double()
    trainer = make_trainer(watched, max_epochs=4, **precision(kind))
    trainer.fit(steps.watch(plain), *loaders)
    dtype = torch.float64 if kind == "64-true" else torch.float32
    torch.testing.assert_close(watched[0].module.weight, trained_alone(steps, dtype).weight)
    found = trainer.callback_metrics
    assert found["eval/knn_acc"] > 0.8
    assert found["eval/sweep_acc"] > 0.8
    assert found["rankme"].isfinite()
    assert found["lidar"].isfinite()
    if kind == "16-mixed":
        assert trainer.precision_plugin.scaler.get_scale() > 1


def test_a_queue_of_half_precision_features_takes_half_the_room(plain, loaders, make_trainer):
    from spt_callbacks import queues_of

    trainer = make_trainer([RankMe(queue_length=96)], max_epochs=1, precision="bf16-mixed")
    trainer.fit(plain(), *loaders)
    assert queues_of(trainer).rings["embedding"].rows.dtype == torch.bfloat16


def test_a_compiled_module_is_watched_like_any_other(plain, loaders, make_trainer):
    results = []
    for compiled in (False, True):
        torch.manual_seed(0)
        loaders[0].generator.manual_seed(0)
        module = plain()
        trainer = make_trainer(callbacks(), max_epochs=2)
        trainer.fit(torch.compile(module, backend="eager") if compiled else module, *loaders)
        results.append({k: float(v) for k, v in trainer.callback_metrics.items()})
    assert results[1] == pytest.approx(results[0], rel=1e-4)


def test_watching_breaks_no_graph_and_compiles_nothing_anew(plain, loaders, make_trainer):
    def graphs(watched):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        module = plain()
        module.encoder = torch.compile(module.encoder, backend="eager")
        make_trainer(watched, max_epochs=1).fit(module, *loaders)
        counters = torch._dynamo.utils.counters
        return dict(counters["graph_break"]), counters["stats"]["unique_graphs"]

    assert graphs(callbacks()) == graphs([])
