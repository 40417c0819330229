"""The evaluation callbacks in a LightningModule that is not ours."""

import lightning as pl
import pytest
import torch
import torchmetrics
from spt_callbacks import (
    LoggingCallback,
    MissingKeyError,
    OnlineKNN,
    OnlineProbe,
    OnlineQueue,
    RankMe,
)
from torch import nn
from torch.utils.data import DataLoader

pytestmark = pytest.mark.filterwarnings("ignore:.*dataloader.*")


def samples(n=48, seed=0):
    """Three separable classes."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.eye(3, 8) * 4
    return [
        {"x": centres[i % 3] + torch.randn(8, generator=generator), "label": i % 3}
        for i in range(n)
    ]


class Plain(pl.LightningModule):
    """Dropout makes its course depend on the global random state."""

    def __init__(self, manual=False):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 6), nn.Dropout(0.2))
        self.head = nn.Linear(6, 8)
        self.automatic_optimization = not manual

    def training_step(self, batch, batch_idx):
        embedding = self.encoder(batch["x"])
        loss = (self.head(embedding) - batch["x"]).square().mean()
        if not self.automatic_optimization:
            self.optimizers().zero_grad()
            self.manual_backward(loss)
            self.optimizers().step()
        return {"loss": loss, "embedding": embedding}

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        return {"embedding": self.encoder(batch["x"])}

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def make_trainer(tmp_path, callbacks=(), **kwargs):
    settings = {"max_epochs": 3, "logger": False, "enable_checkpointing": False, **kwargs}
    return pl.Trainer(
        accelerator="cpu",
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        **settings,
    )


def loaders():
    train = DataLoader(samples(), 8, shuffle=True, generator=torch.Generator().manual_seed(0))
    return train, DataLoader(samples(24, seed=1), 8)


def evaluation():
    watch = {"input": "embedding", "target": "label"}
    head = nn.Sequential(nn.Dropout(0.1), nn.Linear(6, 3))
    return [
        OnlineProbe(
            name="probe",
            probe=head,
            loss=nn.CrossEntropyLoss(),
            optimizer={"type": "Adam", "lr": 0.03},
            **watch,
        ),
        OnlineKNN(name="knn", queue_length=30, k=5, **watch),
        RankMe(name="rankme", target="embedding", queue_length=20),
        OnlineQueue("embedding", 10),
    ]


@pytest.mark.parametrize("manual", [False, True])
def test_weights_are_bitwise_those_of_the_run_without_callbacks(tmp_path, manual):
    results = []
    for callbacks in ([], evaluation()):
        torch.manual_seed(0)
        module = Plain(manual)
        trainer = make_trainer(tmp_path, callbacks)
        torch.manual_seed(1)
        trainer.fit(module, *loaders())
        results.append((module.state_dict(), trainer.global_step, torch.get_rng_state()))
    (bare, steps, rng), (watched, watched_steps, watched_rng) = results
    assert list(bare) == list(watched)
    assert all(torch.equal(bare[key], watched[key]) for key in bare)
    assert steps == watched_steps == 18
    assert torch.equal(rng, watched_rng)


def test_separable_classes_are_found(tmp_path):
    torch.manual_seed(0)
    trainer = make_trainer(tmp_path, evaluation(), max_epochs=8)
    trainer.fit(Plain(), *loaders())
    metrics = trainer.callback_metrics
    assert metrics["eval/knn_acc"] > 0.9
    assert metrics["eval/probe_acc"] > 0.9
    assert metrics["train/probe_loss"] < 1.0
    assert 1 < metrics["rankme"] <= 6


def test_metrics_in_every_form(tmp_path):
    watch = {"input": "embedding", "target": "label"}
    accuracy = torchmetrics.classification.MulticlassAccuracy(3)
    forms = {
        "one": accuracy,
        "list": [accuracy],
        "named": {"top1": accuracy},
        "staged": {"train": {"a": accuracy}, "val": {"b": accuracy}},
    }
    callbacks = [
        OnlineProbe(
            name=n, probe=nn.Linear(6, 3), loss_fn=nn.CrossEntropyLoss(), metrics=m, **watch
        )
        for n, m in forms.items()
    ]
    callbacks.append(OnlineKNN(name="knn", queue_length=9, metrics={"acc3": accuracy}, **watch))
    trainer = make_trainer(tmp_path, callbacks, max_epochs=1)
    trainer.fit(Plain(), *loaders())
    assert {
        "eval/one_MulticlassAccuracy",
        "eval/list_MulticlassAccuracy",
        "eval/named_top1",
        "train/staged_a",
        "eval/staged_b",
        "eval/knn_acc3",
    } <= set(trainer.callback_metrics)


def test_fit_validate_test_and_fit_again(tmp_path):
    module, callbacks = Plain(), evaluation()
    train, val = loaders()
    trainer = make_trainer(tmp_path, callbacks)
    trainer.fit(module, train, val)
    assert "eval/probe_acc" in trainer.validate(module, val, verbose=False)[0]
    tested = trainer.test(module, val, verbose=False)[0]
    assert {"test/probe_acc", "test/knn_acc"} <= set(tested)
    trainer.fit_loop.max_epochs = 4
    trainer.fit(module, train, val)
    assert trainer.current_epoch == 4


def test_a_probe_resumes_and_a_checkpoint_needs_no_probe(tmp_path):
    def probe():
        torch.manual_seed(5)
        return OnlineProbe(
            name="p", probe=nn.Linear(6, 3), loss=nn.CrossEntropyLoss(), optimizer="Adam"
        )

    def run(callbacks, epochs, ckpt_path=None):
        torch.manual_seed(0)
        module = Plain()
        module.encoder[1].p = 0.0
        trainer = make_trainer(tmp_path, callbacks, max_epochs=epochs)
        trainer.fit(module, DataLoader(samples(), 8), ckpt_path=ckpt_path, weights_only=True)
        return trainer

    whole, half, rest = probe(), probe(), probe()
    run([whole], 4)
    run([half], 2).save_checkpoint(tmp_path / "half.ckpt")
    run([rest], 4, ckpt_path=tmp_path / "half.ckpt")
    assert torch.equal(rest.module.weight, whole.module.weight)
    assert not torch.equal(half.module.weight, whole.module.weight)
    with pytest.warns(UserWarning, match="OnlineProbe"):
        run([], 4, ckpt_path=tmp_path / "half.ckpt")


def test_several_validation_loaders(tmp_path):
    train, val = loaders()
    trainer = make_trainer(tmp_path, evaluation(), max_epochs=1)
    trainer.fit(Plain(), train, [val, val])
    assert "eval/knn_acc" in trainer.callback_metrics


def test_precision_and_accumulation(tmp_path):
    probe = OnlineProbe(
        name="p",
        probe=lambda module: nn.Linear(module.head.in_features, 3),
        loss=nn.CrossEntropyLoss(),
        scheduler="CosineAnnealingLR",
        accumulate_grad_batches=4,
        gradient_clip_val=1.0,
    )
    trainer = make_trainer(
        tmp_path, [probe], precision="bf16-mixed", accumulate_grad_batches=2, max_epochs=2
    )
    trainer.fit(Plain(), *loaders())
    assert probe.module.weight.dtype == torch.float32
    assert probe.head.scheduler.T_max == 4
    assert probe.head.scheduler.last_epoch == 4  # 6 batches an epoch: one full and one short window


def test_missing_keys_and_misaligned_rows_are_named(tmp_path):
    wrong = OnlineProbe(name="p", input="embeding", probe=nn.Linear(6, 3), loss=nn.MSELoss())
    message = (
        r"OnlineProbe 'p' needs the key 'embeding'; the step returned \['embedding', 'loss'\], "
        r"the batch holds \['label', 'x'\]"
    )
    with pytest.raises(MissingKeyError, match=message):
        make_trainer(tmp_path, [wrong], num_sanity_val_steps=0).fit(Plain(), *loaders())

    class TwoViews(Plain):
        def training_step(self, batch, batch_idx):
            state = super().training_step(batch, batch_idx)
            return {**state, "embedding": torch.cat([state["embedding"]] * 2)}

    knn = OnlineKNN(name="k", queue_length=9)
    with pytest.raises(
        ValueError, match=r"one 'label' per row of 'embedding', got \(8,\) and \(16, 6"
    ):
        make_trainer(tmp_path, [knn]).fit(TwoViews(), *loaders())


def test_a_step_that_returns_no_mapping_is_named(tmp_path):
    class Scalar(Plain):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx)["loss"]

    rank = RankMe(target="hidden")
    with pytest.raises(MissingKeyError, match=r"the step returned \['loss'\]"):
        make_trainer(tmp_path, [rank]).fit(Scalar(), *loaders())


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: OnlineProbe(probe=nn.Linear(1, 1)), ValueError, "needs a loss.*got neither"),
        (
            lambda: OnlineProbe(probe=nn.Linear(1, 1), loss=sum, loss_fn=sum),
            ValueError,
            "got both",
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
        (lambda: OnlineKNN(k=0), ValueError, "`k` of OnlineKNN 'knn' must be > 0, got 0"),
        (lambda: OnlineKNN(temperature=-1), ValueError, "`temperature`"),
        (lambda: OnlineKNN(chunk_size=0), ValueError, "`chunk_size` must be -1 or >= 1"),
        (lambda: OnlineKNN(num_classes=0), ValueError, "`num_classes` must be >= 1"),
    ],
)
def test_bad_settings_are_named(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


def test_metrics_are_printed_after_each_validation(tmp_path, capsys):
    trainer = make_trainer(tmp_path, [*evaluation(), LoggingCallback()], max_epochs=2)
    trainer.fit(Plain(), *loaders())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert len(lines) == 2
    assert lines[1].startswith("epoch 2/2  step 12  eval/knn_acc ")
    assert "rankme" in lines[1]


def test_a_label_beyond_the_classes_is_named(tmp_path):
    knn = OnlineKNN(name="k", queue_length=9, num_classes=2)
    with pytest.raises(
        ValueError, match="OnlineKNN 'k' was told 2 classes, but 'label' holds .* 2"
    ):
        make_trainer(tmp_path, [knn]).fit(Plain(), *loaders())


def test_a_short_last_window_is_averaged_over_what_came(tmp_path):
    def run(batch_size, accumulate):
        torch.manual_seed(0)
        probe = OnlineProbe(
            name="p",
            input="x",
            probe=nn.Linear(8, 3),
            loss=nn.CrossEntropyLoss(),
            optimizer={"type": "SGD", "lr": 0.5},
            accumulate_grad_batches=accumulate,
        )
        loader = DataLoader(samples(24), batch_size)
        make_trainer(tmp_path, [probe], max_epochs=1).fit(Plain(), loader)
        return probe.module.weight.detach()

    torch.testing.assert_close(run(8, 3), run(4, 9))  # one step over the same 24 rows
