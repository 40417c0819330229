"""Probes against the same training written out, tasks of every kind, and the sweep against single heads."""

from pathlib import Path

import lightning as pl
import numpy as np
import pytest
import torch
import torchmetrics
from spt_callbacks import (
    MissingKeyError,
    OnlineKNN,
    OnlineProbe,
    OnlineProbeSweep,
    RankMe,
    pool_tokens,
)
from spt_callbacks.metrics import MultilabelAP, TopK, default_metrics, task_of
from torch import nn
from torch.utils.data import DataLoader

pytestmark = pytest.mark.filterwarnings("ignore:.*dataloader.*")

GOLDEN = Path(__file__).parent / "golden"


def linear(width=8, outputs=3, seed=5):
    torch.manual_seed(seed)
    return nn.Linear(width, outputs)


@pytest.mark.parametrize(("clip", "algorithm"), [(None, "norm"), (0.05, "norm"), (0.01, "value")])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_probe_is_trained_as_it_would_be_alone(
    plain, make_trainer, make_samples, clip, algorithm, accumulate
):
    loader = DataLoader(make_samples(), 8)
    probe = OnlineProbe(
        name="p",
        input="x",
        target=lambda outputs, batch: batch["label"],
        probe=linear(),
        loss=nn.CrossEntropyLoss(),
        optimizer={"type": "SGD", "lr": 0.5, "momentum": 0.9},
        scheduler={"type": "CosineAnnealingLR"},
        gradient_clip_val=clip,
        gradient_clip_algorithm=algorithm,
        accumulate_grad_batches=accumulate,
    )
    make_trainer([probe], max_epochs=2).fit(plain(), loader)

    head = linear()
    optimizer = torch.optim.SGD(head.parameters(), lr=0.5, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12 // accumulate)
    for step, batch in enumerate([*loader, *loader], start=1):
        loss = nn.functional.cross_entropy(head(batch["x"]), batch["label"])
        (loss / accumulate).backward()
        if step % accumulate == 0:
            if clip is not None:
                getattr(nn.utils, f"clip_grad_{algorithm}_")(head.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    torch.testing.assert_close(probe.module.weight, head.weight)
    assert probe.head.steps == 12 // accumulate


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ({"type": "StepLR", "step_size": 1, "gamma": 0.1, "interval": "epoch"}, 1e-3),
        ({"type": "StepLR", "step_size": 3, "gamma": 0.1, "interval": "step"}, 1e-6),
        ({"type": "StepLR", "step_size": 3, "gamma": 0.1, "frequency": 2}, 1e-3),
        (None, 1.0),
    ],
)
def test_the_interval_of_a_scheduler(plain, loaders, make_trainer, scheduler, expected):
    probe = OnlineProbe(
        probe=linear(6),
        loss=nn.CrossEntropyLoss(),
        optimizer={"type": "SGD", "lr": 1.0},
        scheduler=scheduler,
        verbose=True,
    )
    trainer = make_trainer([probe], max_epochs=3)
    trainer.fit(plain(), loaders[0])
    assert probe.head.optimizer.param_groups[0]["lr"] == pytest.approx(expected)
    assert "hparams/lr_probe" in trainer.callback_metrics


def test_regression_and_multilabel_have_metrics_of_their_own(plain, make_trainer, make_samples):
    data = [{**s, "value": s["x"][:2], "tags": (s["x"][:4] > 1).float()} for s in make_samples(96)]
    adam = {"type": "Adam", "lr": 0.05}
    probes = [
        OnlineProbe(
            name="line", input="x", target="value", probe=linear(8, 2), loss=nn.MSELoss(),
            optimizer=adam,
        ),
        OnlineProbe(
            name="tags", input="x", target="tags", probe=linear(8, 4), optimizer=adam,
            loss=nn.BCEWithLogitsLoss(),
        ),
    ]  # fmt: skip
    trainer = make_trainer(probes, max_epochs=12)
    trainer.fit(plain(), DataLoader(data, 8), DataLoader(data, 8))
    assert trainer.callback_metrics["eval/line_mse"] < 0.1
    assert trainer.callback_metrics["eval/tags_map"] > 0.9
    assert not any("acc" in name for name in trainer.callback_metrics)


def test_the_task_is_told_by_loss_and_targets():
    classes, tags, values = torch.zeros(4, dtype=torch.long), torch.zeros(4, 3), torch.zeros(4)
    assert task_of(classes) == "classification"
    assert task_of(tags.long()) == "multilabel"
    assert task_of(tags, nn.BCEWithLogitsLoss()) == "multilabel"
    assert task_of(values, nn.MSELoss()) == "regression"
    assert task_of(tags) == "other"
    assert list(default_metrics("classification", 6)) == ["acc", "top5"]
    assert default_metrics("other", 3) == {}


def test_default_metrics_agree_with_their_definitions():
    generator = torch.Generator().manual_seed(0)
    scores, targets = torch.randn(50, 9, generator=generator), torch.arange(50) % 9
    for k in (1, 5):
        metric = TopK(k)
        for part in zip(scores.split(20), targets.split(20), strict=True):
            metric.update(*part)
        hits = [
            t in row.argsort(descending=True)[:k] for t, row in zip(targets, scores, strict=True)
        ]
        assert metric.compute().item() == pytest.approx(np.mean(hits))
    voted = TopK(5)
    voted.update(torch.tensor([[0.6, 0.4, 0.0, 0.0, 0.0, 0.0]]), torch.tensor([2]))
    assert voted.compute() == 0  # a class without a vote is no guess

    from sklearn.metrics import average_precision_score

    tags = (torch.rand(50, 9, generator=generator) > 0.6).float()
    metric = MultilabelAP(num_labels=9, thresholds=None)
    metric.update(scores, tags)
    expected = average_precision_score(tags.numpy(), scores.numpy(), average="macro")
    assert metric.compute().item() == pytest.approx(expected, abs=1e-6)


def test_the_loss_of_an_epoch_is_the_mean_over_rows(plain, make_trainer, make_samples):
    probe = OnlineProbe(
        input="x",
        target="y",
        probe=linear(),
        loss=nn.CrossEntropyLoss(),
        optimizer={"type": "SGD", "lr": 0.0},
    )
    data = make_samples(20)
    trainer = make_trainer([probe], max_epochs=1)
    trainer.fit(plain(), DataLoader(data, 8))  # batches of 8, 8 and 4
    (batch,) = DataLoader(data, 20)
    expected = nn.functional.cross_entropy(probe.module(batch["x"]), batch["label"]).item()
    assert trainer.callback_metrics["train/probe_loss"].item() == pytest.approx(expected)


def test_a_sweep_trains_each_head_as_alone_and_names_the_best(plain, make_trainer, make_samples):
    loader, rates = DataLoader(make_samples(), 8), (1e-3, 1.0, 16.0)
    sweep = OnlineProbeSweep(
        "s", ["x", lambda outputs, batch: batch["x"][:, :2]], "y", num_outputs=3, rates=rates,
        weight_decay=1e-3, log_all=True,
    )  # fmt: skip
    starts = {}
    make = sweep._make

    def spy(features, names):
        heads = make(features, names)
        starts.update({(v, r): heads.linear(v, r) for v in (0, 1) for r in range(3)})
        return heads

    sweep._make = spy
    trainer = make_trainer([sweep], max_epochs=3)
    trainer.fit(plain(), loader, loader)

    accuracy = {}
    for (variant, rate), head in starts.items():
        scaled = rates[rate] * 8 / 256
        optimizer = torch.optim.SGD(head.parameters(), scaled, momentum=0.9, weight_decay=1e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 18)
        inputs = (lambda x: x) if variant == 0 else (lambda x: x[:, :2])
        for batch in [*loader] * 3:
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(inputs(batch["x"])), batch["label"]).backward()
            optimizer.step()
            schedule.step()
        found = sweep.heads.linear(variant, rate)
        torch.testing.assert_close(found.weight, head.weight, rtol=1e-4, atol=1e-6)
        hits = [head(inputs(b["x"])).argmax(1) == b["label"] for b in loader]
        accuracy[variant, rate] = torch.cat(hits).float().mean().item()

    best = max(accuracy.values())
    assert trainer.callback_metrics["eval/s_acc"].item() == pytest.approx(best)
    place = sweep.names.index(sweep.best)
    assert accuracy[divmod(place, 3)] == pytest.approx(best)
    assert trainer.callback_metrics["eval/s_acc/x/lr=0.001"].item() == pytest.approx(accuracy[0, 0])
    torch.testing.assert_close(
        sweep.best_head().weight, sweep.heads.linear(*divmod(place, 3)).weight
    )


def test_a_sweep_resumes_exactly(plain, make_trainer, make_samples, tmp_path):
    class Save(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    def run(*callbacks, ckpt_path=None):
        torch.manual_seed(0)
        sweep = OnlineProbeSweep(num_outputs=3, input="x", target="y", rates=(0.1, 1.0))
        trainer = make_trainer([sweep, *callbacks], max_epochs=4)
        trainer.fit(plain(), DataLoader(make_samples(), 8), ckpt_path=ckpt_path, weights_only=True)
        return sweep

    whole = run(Save())
    rest = run(ckpt_path=tmp_path / "half.ckpt")
    assert rest._steps == whole._steps == 24
    for one, two in zip(rest.heads.parameters(), whole.heads.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_sweep_of_values_logs_its_loss(plain, make_trainer, make_samples):
    data = [{**s, "value": s["x"][:2]} for s in make_samples()]
    sweep = OnlineProbeSweep(
        input="x", target="value", num_outputs=2, loss=nn.MSELoss(), rates=(1e-4, 1.0)
    )
    trainer = make_trainer([sweep], max_epochs=8)
    trainer.fit(plain(), DataLoader(data, 8), DataLoader(data, 8))
    assert sweep.best == "x/lr=1"
    assert trainer.callback_metrics["eval/sweep_loss"] < 1.0


def test_poolings_of_tokens_are_those_of_the_official_code():
    golden = np.load(GOLDEN / "linear_probe_inputs.npz")
    tokens = torch.tensor(golden["tokens"])
    for n in (1, 4):
        for average, pooling in ((0, "cls"), (1, "cls_mean")):
            found = pool_tokens(list(tokens[-n:]), pooling)
            expected = torch.tensor(golden[f"dinov2_n{n}_avg{average}"])
            torch.testing.assert_close(found, expected)
    torch.testing.assert_close(pool_tokens([tokens[0]], "mean"), tokens[0][:, 1:].mean(1))
    with pytest.raises(ValueError, match="needs tokens after the first 10, got"):
        pool_tokens([tokens[0]], "mean", num_prefix_tokens=10)
    with pytest.raises(ValueError, match=r"one of \['cls', 'mean', 'cls_mean'\], got 'max'"):
        pool_tokens([tokens[0]], "max")


def test_a_sweep_over_layers_and_poolings(plain, make_trainer, make_samples):
    class Tokens(plain):
        def state(self, batch):
            tokens = torch.stack([batch["x"]] * 3, 1)
            return {"blocks": {"8": tokens, "9": -tokens}, "map": batch["x"][:, :, None, None]}

        def training_step(self, batch, batch_idx):
            state = super().training_step(batch, batch_idx)
            return {**self.state(batch), "loss": state["loss"]}

        def validation_step(self, batch, batch_idx):
            return self.state(batch)

    sweep = OnlineProbeSweep(
        input=["blocks.9", ("blocks.8", "blocks.9"), "map"], num_outputs=3, rates=(0.1, 8.0)
    )
    loader = DataLoader(make_samples(), 8)
    make_trainer([sweep], max_epochs=2).fit(Tokens(), loader, loader)
    assert sweep.heads.widths == [8, 16, 16, 24, 8]
    assert sweep.names[::2] == [
        "blocks.9/cls/lr=0.1", "blocks.9/cls_mean/lr=0.1", "blocks.8+blocks.9/cls/lr=0.1",
        "blocks.8+blocks.9/cls_mean/lr=0.1", "map/lr=0.1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (
            lambda: OnlineProbe(probe=nn.Linear(1, 1), loss=sum, gradient_clip_algorithm="max"),
            ValueError,
            '`gradient_clip_algorithm` must be "norm" or "value", got \'max\'',
        ),
        (
            lambda: OnlineProbe(probe=nn.Linear(1, 1), loss=sum, scheduler={"interval": "minute"}),
            ValueError,
            "`interval` of a scheduler .* got 'minute'",
        ),
        (
            lambda: OnlineProbe(probe=nn.Linear(1, 1), loss=sum, scheduler={"frequency": 0}),
            ValueError,
            "`frequency` of a scheduler must be >= 1, got 0",
        ),
        (lambda: OnlineProbe(probe=nn.Linear(1, 1)), ValueError, "needs a loss.*got neither"),
        (
            lambda: OnlineProbe(probe=nn.Linear(1, 1), loss=sum, loss_fn=sum),
            ValueError,
            "got both",
        ),
        (
            lambda: OnlineProbe(input=None, target=None, probe=nn.Linear(1, 1), metrics=[]),
            ValueError,
            "brings its own loss, so it takes no `metrics`",
        ),
        (lambda: OnlineProbe(loss=sum), TypeError, "must be a module or a function"),
        (
            lambda: OnlineProbe(probe=nn.Linear(1, 1), loss=sum, accumulate_grad_batches=0),
            ValueError,
            "`accumulate_grad_batches` must be >= 1",
        ),
        (
            lambda: OnlineProbe(probe=nn.Linear(1, 1), loss=sum, metrics=["acc"]),
            TypeError,
            "torchmetrics metrics, got str",
        ),
        (lambda: OnlineProbe(probe=nn.Linear(1, 1), loss=3), TypeError, "`loss` of .* callable"),
        (lambda: OnlineProbeSweep(num_outputs=0), ValueError, "`num_outputs` must be >= 1, got 0"),
        (lambda: OnlineProbeSweep(num_outputs=2, rates=()), ValueError, "`rates` must be"),
        (lambda: OnlineProbeSweep(num_outputs=2, poolings=["x"]), ValueError, "`pooling` must be"),
        (lambda: OnlineProbeSweep(num_outputs=2).best_head(), RuntimeError, "has judged no head"),
    ],
)
def test_bad_settings_are_named(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


def test_keys_descend_into_mappings_lists_and_views():
    from spt_callbacks.keys import holds, look_up

    outputs = {"a.b": {"c.d": torch.tensor([1.0], requires_grad=True)}, "a": {"x": torch.ones(1)}}
    batch = {"views": [{"y": torch.zeros(2)}, {"y": torch.ones(2)}]}
    assert look_up("a.b.c.d", outputs, batch, "t").requires_grad is False
    assert look_up("a.x", outputs, batch, "t").tolist() == [1]
    assert look_up("views.1.y", outputs, batch, "t").tolist() == [1, 1]
    assert look_up("y", outputs, batch, "t").tolist() == [0, 0, 1, 1]
    assert look_up(lambda o, b: b["views"][0]["y"], outputs, batch, "t").tolist() == [0, 0]
    assert holds("a.x", outputs, None)
    assert not holds("a.y", outputs, None)
    with pytest.raises(MissingKeyError, match=r"t needs the key 'a.y'; .* holds \['views'\]"):
        look_up("a.y", outputs, batch, "t")
    with pytest.raises(TypeError, match="t needs a tensor at 'views', got list"):
        look_up("views", outputs, batch, "t")


class Own(nn.Module):
    """Reads two things of a step and, wrongly, the module with its graph; brings its own loss."""

    def __init__(self):
        super().__init__()
        self.head = linear(6)

    def forward(self, batch, outputs, pl_module):
        logits = self.head(outputs["embedding"])
        made = {"own_logits": logits}
        if self.training:
            again = self.head(pl_module.encoder[0](batch["x"]))
            made["loss"] = nn.functional.cross_entropy(logits, outputs["label"]) + 0 * again.sum()
        return made


def test_a_probe_may_bring_its_own_loss(plain, loaders, make_trainer):
    weights = []
    for probes in ([], [OnlineProbe(name="own", input=None, target=None, probe=Own())]):
        torch.manual_seed(0)
        loaders[0].generator.manual_seed(0)
        module, trainer = plain(), make_trainer(probes, max_epochs=6)
        trainer.fit(module, *loaders)
        weights.append(module.encoder[0].weight.detach())
    assert torch.equal(*weights)
    assert trainer.callback_metrics["train/own_loss"] < 0.8
    (first, *_) = trainer.predict(module, loaders[1])
    hits = first["own_logits"].argmax(1) == next(iter(loaders[1]))["label"]
    assert hits.double().mean() > 0.7


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (torch.ones(1), "so its probe must return a mapping, got Tensor"),
        ({"a": 1}, r"a scalar tensor under 'loss' in training, got \['a'\]"),
    ],
)
def test_a_probe_that_brings_no_loss_is_named(plain, loaders, make_trainer, made, message):
    class Wrong(Own):
        def forward(self, batch, outputs, pl_module):
            return made

    probe = OnlineProbe(name="own", input=None, target=None, probe=Wrong())
    with pytest.raises(TypeError, match=f"OnlineProbe 'own' has no `loss`, .*{message}"):
        make_trainer([probe], num_sanity_val_steps=0).fit(plain(), *loaders)


def test_metrics_in_every_form(plain, loaders, make_trainer):
    accuracy = torchmetrics.classification.MulticlassAccuracy(3)
    forms = {
        "one": accuracy,
        "list": [accuracy],
        "named": {"top1": accuracy},
        "staged": {"train": {"a": accuracy}, "val": {"b": accuracy}},
    }
    probes = [
        OnlineProbe(name=n, probe=linear(6), loss_fn=nn.CrossEntropyLoss(), metrics=m)
        for n, m in forms.items()
    ]
    trainer = make_trainer(probes, max_epochs=1)
    trainer.fit(plain(), *loaders)
    assert {
        "eval/one_MulticlassAccuracy",
        "eval/list_MulticlassAccuracy",
        "eval/named_top1",
        "train/staged_a",
        "eval/staged_b",
    } <= set(trainer.callback_metrics)


def test_a_probe_resumes_exactly(plain, make_trainer, make_samples, tmp_path):
    def run(epochs, ckpt_path=None):
        torch.manual_seed(0)
        module = plain()
        module.encoder[1].p = 0.0
        probe = OnlineProbe(probe=linear(6), loss=nn.CrossEntropyLoss(), optimizer="Adam")
        trainer = make_trainer([probe], max_epochs=epochs)
        loader = DataLoader(make_samples(), 8)
        trainer.fit(module, loader, ckpt_path=ckpt_path, weights_only=True)
        return trainer, probe.module.weight

    _, whole = run(4)
    trainer, half = run(2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    _, rest = run(4, tmp_path / "half.ckpt")
    assert torch.equal(rest, whole)
    assert not torch.equal(half, whole)


def test_a_probe_counts_its_own_windows(plain, loaders, make_trainer):
    probe = OnlineProbe(
        probe=lambda module: nn.Linear(module.head.in_features, 3),
        loss=nn.CrossEntropyLoss(),
        scheduler="CosineAnnealingLR",
        accumulate_grad_batches=4,
    )
    make_trainer([probe], accumulate_grad_batches=2).fit(plain(), *loaders)
    assert probe.head.scheduler.T_max == 4
    assert probe.head.scheduler.last_epoch == 4  # 6 batches an epoch: one full and one short window


def test_a_short_last_window_is_averaged_over_what_came(plain, make_trainer, make_samples):
    def run(batch_size, accumulate):
        probe = OnlineProbe(
            input=lambda outputs, batch: batch["x"],
            target=lambda outputs, batch: batch["label"],
            probe=linear(),
            loss=nn.CrossEntropyLoss(),
            optimizer={"type": "SGD", "lr": 0.5},
            accumulate_grad_batches=accumulate,
        )
        loader = DataLoader(make_samples(24), batch_size)
        make_trainer([probe], max_epochs=1).fit(plain(), loader)
        return probe.module.weight.detach()

    torch.testing.assert_close(run(8, 3), run(4, 9))  # one step over the same 24 rows


def test_missing_keys_and_misaligned_rows_are_named(plain, loaders, make_trainer):
    wrong = OnlineProbe(name="p", input="embeding", probe=linear(6), loss=nn.CrossEntropyLoss())
    message = (
        r"OnlineProbe 'p' needs the key 'embeding'; the step returned \['embedding', 'label', "
        r"'loss'\], the batch holds \['label', 'sample_idx', 'x', 'y'\]"
    )
    with pytest.raises(MissingKeyError, match=message):
        make_trainer([wrong], num_sanity_val_steps=0).fit(plain(), *loaders)

    probe = OnlineProbe(name="p", target="y", probe=linear(6), loss=nn.CrossEntropyLoss())
    message = r"one 'y' per row of 'embedding', got \(8,\) and \(16, 6"
    for callback in (probe, OnlineKNN(target="y", queue_length=9)):
        with pytest.raises(ValueError, match=message):
            make_trainer([callback], num_sanity_val_steps=0).fit(plain(), *loaders)


def test_a_step_that_returns_no_mapping_is_named(plain, loaders, make_trainer):
    class Scalar(plain):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx)["loss"]

    with pytest.raises(MissingKeyError, match=r"the step returned \['loss'\]"):
        make_trainer([RankMe(target="hidden")]).fit(Scalar(), *loaders)
