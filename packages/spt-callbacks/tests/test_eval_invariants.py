"""A watched run is the run it would have been, and its callbacks survive every order of stages."""

import lightning as pl
import pytest
import torch
import torchmetrics
from loguru import logger
from spt_callbacks import (
    Alignment,
    AlphaReQ,
    CLIPZeroShot,
    FeatureStd,
    ImageRetrieval,
    LatentViz,
    LiDAR,
    MeanCosine,
    OnlineKNN,
    OnlineProbe,
    OnlineProbeSweep,
    OnlineQueue,
    RankMe,
    Uniformity,
)
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

pytestmark = pytest.mark.filterwarnings("ignore:.*dataloader.*")


def probe(name="probe", **kwargs):
    settings = {
        "probe": lambda module: nn.Sequential(nn.Dropout(0.1), nn.Linear(6, 3)),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9},
        **kwargs,
    }
    return OnlineProbe(name=name, **settings)


def evaluation():
    return [
        probe(scheduler={"type": "CosineAnnealingLR", "interval": "epoch"}),
        probe("second", gradient_clip_val=0.1, accumulate_grad_batches=2),
        OnlineProbeSweep(num_outputs=3, rates=(0.1, 1.0)),
        OnlineKNN(queue_length=30, k=5),
        RankMe(queue_length=20, verbose=True),
        LiDAR(queue_length=40, verbose=True),
        FeatureStd(queue_length=20),
        MeanCosine(queue_length=20),
        AlphaReQ(queue_length=20, ranks=(1, 5)),
        Uniformity(queue_length=20),
        Alignment(queue_length=20),
        OnlineQueue("embedding", 10, verbose=True),
        ImageRetrieval(queries={0: {"relevant": [3, 6]}}),
        CLIPZeroShot(
            "clip", "x", "label", ["a", "b", "c"], "encoder", nn.EmbeddingBag(9, 6),
            lambda names: torch.tensor([[ord(name) - ord("a")] for name in names]),
        ),
        LatentViz(projection=nn.Linear(6, 2), update_interval=2, k_neighbors=3, queue_length=20),
    ]  # fmt: skip


KEYS = {
    "train/probe_loss", "train/probe_loss_step", "train/probe_loss_epoch", "eval/probe_acc",
    "train/sweep_loss", "eval/sweep_acc", "eval/knn_acc", "rankme", "rankme/entropy", "lidar",
    "lidar/images", "feature_std", "mean_cosine", "alpha_req", "uniformity", "alignment",
    "queue/embedding_fill_pct", "eval/retrieval_map", "eval/clip_acc", "train/latent_viz_loss",
}  # fmt: skip


@pytest.mark.parametrize(("manual", "accumulate"), [(False, 1), (False, 2), (True, 1)])
def test_weights_are_bitwise_those_of_the_bare_run(
    plain, loaders, make_trainer, manual, accumulate
):
    results = []
    for callbacks in ([], evaluation()):
        torch.manual_seed(0)
        module = plain(manual)
        trainer = make_trainer(callbacks, accumulate_grad_batches=accumulate)
        torch.manual_seed(1)
        loaders[0].generator.manual_seed(0)
        trainer.fit(module, *loaders)
        results.append((module, trainer, torch.get_rng_state()))
    (bare, bare_run, rng), (watched, watched_run, watched_rng) = results
    assert set(vars(bare)) == set(vars(watched))
    assert list(bare.state_dict()) == list(watched.state_dict())
    for key, value in bare.state_dict().items():
        assert torch.equal(value, watched.state_dict()[key]), key
    assert [n for n, _ in bare.named_modules()] == [n for n, _ in watched.named_modules()]
    assert not any(module._forward_hooks or module._backward_hooks for module in watched.modules())
    assert bare_run.global_step == watched_run.global_step
    assert torch.equal(rng, watched_rng)
    assert set(watched_run.callback_metrics) >= KEYS


def test_an_optimizer_state_of_the_run_is_not_touched(plain, loaders, make_trainer):
    trainer = make_trainer(evaluation())
    trainer.fit(plain(), *loaders)
    assert len(trainer.optimizers) == 1
    assert len(trainer.optimizers[0].param_groups[0]["params"]) == 4


def test_every_order_of_stages(plain, loaders, make_trainer):
    accuracy = {"top1": torchmetrics.classification.MulticlassAccuracy(3)}
    callbacks = [*evaluation(), probe("given", metrics=accuracy)]
    module, trainer = plain(), make_trainer(callbacks)
    trainer.fit(module, *loaders)
    assert "eval/given_top1" in trainer.validate(module, loaders[1], verbose=False)[0]
    tested = trainer.test(module, loaders[1], verbose=False)[0]
    assert {"test/probe_acc", "test/knn_acc", "test/rankme", "test/sweep_acc"} <= set(tested)
    (first, *_) = trainer.predict(module, loaders[1])
    assert first["probe_preds"].shape == (8, 3)
    trainer.fit_loop.max_epochs = 3
    trainer.fit(module, *loaders)
    assert trainer.current_epoch == 3
    assert trainer.callback_metrics["eval/given_top1"] > 0.3


@pytest.fixture
def messages():
    found = []
    sink = logger.add(lambda message: found.append(str(message)), level="INFO", format="{message}")
    yield found
    logger.remove(sink)


def test_checkpoints_load_with_and_without_probes(plain, loaders, make_trainer, tmp_path, messages):
    paths = {}
    for name, callbacks in (("bare", []), ("watched", evaluation())):
        trainer = make_trainer(callbacks)
        trainer.fit(plain(), *loaders)
        paths[name] = tmp_path / f"{name}.ckpt"
        trainer.save_checkpoint(paths[name])
    plain.load_from_checkpoint(paths["watched"], weights_only=True)
    keys = [set(torch.load(path, weights_only=True)["state_dict"]) for path in paths.values()]
    assert keys[0] == keys[1]

    with pytest.warns(UserWarning, match="OnlineProbe") as caught:
        make_trainer(max_epochs=3).fit(plain(), *loaders, ckpt_path=paths["watched"])
    assert sum("callbacks used to create" in str(w.message) for w in caught) == 1

    messages.clear()
    make_trainer(evaluation(), max_epochs=3).fit(plain(), *loaders, ckpt_path=paths["bare"])
    told = [message for message in messages if "holds no state of" in message]
    assert len(told) == 1
    assert "OnlineProbe[name=probe], OnlineProbe[name=second], OnlineProbeSweep" in told[0]


def test_validation_alone_uses_the_weights_of_the_checkpoint(
    plain, loaders, make_trainer, tmp_path
):
    module, callbacks = plain(), [probe(), OnlineProbeSweep(num_outputs=3, rates=(0.1, 10.0))]
    trainer = make_trainer(callbacks, max_epochs=3)
    trainer.fit(module, *loaders)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    expected = trainer.validate(module, loaders[1], verbose=False)[0]

    torch.manual_seed(123)
    fresh = [probe(), OnlineProbeSweep(num_outputs=3, rates=(0.1, 10.0))]
    found = make_trainer(fresh).validate(
        plain(), loaders[1], ckpt_path=tmp_path / "a.ckpt", verbose=False
    )[0]
    assert found == expected
    assert expected["eval/probe_acc"] > 0.8
    assert torch.equal(fresh[0].module[1].weight, callbacks[0].module[1].weight)
    make_trainer(fresh, max_epochs=1).fit(
        plain(), *loaders
    )  # what inference mode made is trainable


def test_another_trainer_starts_the_optimizer_and_the_queues_anew(plain, loaders, make_trainer):
    watching, sweep = probe(), OnlineProbeSweep(num_outputs=3, rates=(0.1,))
    knn = OnlineKNN(queue_length=500)
    first = make_trainer([watching, sweep, knn])
    first.fit(plain(), *loaders)
    optimizer, steps = watching.head.optimizer, watching.head.steps
    weight = watching.module[1].weight.clone()
    assert steps == 12
    second = make_trainer([watching, sweep, knn], max_epochs=1)
    second.validate(plain(), loaders[1], verbose=False)
    assert torch.equal(watching.module[1].weight, weight)  # what was learned is not lost
    second.fit(plain(), *loaders)
    assert watching.head.optimizer is not optimizer
    assert watching.head.steps == 6
    assert sweep._steps == 6
    assert len(knn.recent(second)[0]) == 96
    assert len(knn.recent(first)[0]) == 192


def test_loaders_are_judged_one_by_one_and_together(plain, loaders, make_trainer, make_samples):
    train, val = loaders
    wrong = [{**sample, "label": (sample["label"] + 1) % 3} for sample in make_samples(12, seed=2)]
    callbacks = [probe(), OnlineKNN(queue_length=96, k=5)]
    trainer = make_trainer(callbacks, max_epochs=6)
    trainer.fit(plain(), train, [val, DataLoader(wrong, 8)])
    for name in ("probe", "knn"):
        found = trainer.callback_metrics
        right = found[f"eval/{name}_acc/dataloader_idx_0"]
        bad = found[f"eval/{name}_acc/dataloader_idx_1"]
        assert right > 0.8 > 0.2 > bad
        assert float(found[f"eval/{name}_acc"]) == pytest.approx(float(2 * right + bad) / 3)


class HostReads(TorchDispatchMode):
    """Counts what makes the host wait for the device."""

    READS = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select")

    def __init__(self):
        super().__init__()
        self.found = []
        self.casts = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in self.READS:
            self.found.append(name)
        if name == "_to_copy" and args[0].dtype == torch.bfloat16:
            self.casts += 1
        return func(*args, **(kwargs or {}))


def counting(callbacks, hook="on_train_batch_end"):
    """Run the callbacks' work of each batch under a counter; the counts by callback."""
    counts = {}
    for callback in callbacks:
        inner = getattr(callback, hook)

        def wrapped(trainer, *args, inner=inner, name=callback.state_key):
            with HostReads() as mode:
                inner(trainer, *args)
            counts.setdefault(name, []).append(mode)

        setattr(callback, hook, wrapped)
    return counts


def test_no_value_is_read_back_in_a_training_step(plain, loaders, make_trainer):
    callbacks = [c for c in evaluation() if not isinstance(c, LatentViz)]
    counts = counting(callbacks)
    trainer = make_trainer(callbacks)
    trainer.fit(plain(), *loaders)
    assert len(counts) == len(callbacks)
    for name, modes in counts.items():
        assert len(modes) == 12, name
        assert [mode.found for mode in modes] == [[]] * 12, name


def test_no_value_is_read_back_in_a_validation_batch(plain, loaders, make_trainer):
    callbacks = [probe(), OnlineProbeSweep(num_outputs=3), OnlineKNN(queue_length=30, k=5)]
    counts = counting(callbacks, "on_validation_batch_end")
    make_trainer(callbacks, num_sanity_val_steps=0).fit(plain(), *loaders)
    assert len(counts) == len(callbacks)
    for name, modes in counts.items():
        assert [mode.found for mode in modes] == [[]] * 6, name


def test_the_counter_counts():
    with HostReads() as mode:
        float(torch.ones(()))
        bool(torch.ones(1) > 0)
    assert len(mode.found) == 2


def test_probes_share_one_conversion_of_the_features(plain, loaders, make_trainer):
    class Half(plain):
        def training_step(self, batch, batch_idx):
            state = super().training_step(batch, batch_idx)
            return {**state, "embedding": state["embedding"].bfloat16()}

    callbacks = [probe(f"p{i}") for i in range(4)]
    counts = counting(callbacks)
    make_trainer(callbacks, max_epochs=1).fit(Half(), loaders[0])
    for step in range(6):
        assert sum(modes[step].casts for modes in counts.values()) == 1


def test_dropout_of_a_probe_differs_from_step_to_step_though_the_run_draws_nothing(
    plain, loaders, make_trainer
):
    masks = []

    class Mask(nn.Module):
        def forward(self, x):
            if self.training:
                masks.append(torch.rand(3).tolist())
            return x @ torch.ones(6, 3, requires_grad=True)

    def run():
        masks.clear()
        torch.manual_seed(3)
        module = plain()
        module.encoder[1].p = 0.0
        watching = probe(probe=nn.Sequential(nn.Linear(6, 6), Mask()))
        make_trainer([watching], max_epochs=1, num_sanity_val_steps=0).fit(module, loaders[0])
        return list(map(tuple, masks))

    first = run()
    assert len(set(first)) == 6
    assert run() == first


def test_a_checkpoint_inside_an_epoch_holds_the_current_batch(
    plain, loaders, make_trainer, tmp_path
):
    saver = pl.pytorch.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=4, save_top_k=-1)
    callbacks = [saver, probe(), OnlineQueue("sample_idx", 500, save_queues=True)]
    trainer = make_trainer(callbacks, max_epochs=1, enable_checkpointing=True)
    trainer.fit(plain(), loaders[0])
    (path,) = tmp_path.glob("*step=4.ckpt")
    state = torch.load(path, weights_only=True)["callbacks"]
    assert state["OnlineProbe[name=probe]"]["steps"] == 4
    ((rows,),) = state["OnlineQueue[key=sample_idx, queue_length=500]"]["queues"]
    assert len(rows) == 32


def test_one_import_brings_all_names():
    namespace = {}
    exec("from spt_callbacks import *", namespace)
    assert {"OnlineQueue", "HPMetricLogger", "LiDAR", "OnlineProbeSweep"} <= set(namespace)


def test_a_name_taken_by_the_step_is_an_error(plain, loaders, make_trainer):
    class Taken(plain):
        def training_step(self, batch, batch_idx):
            return {**super().training_step(batch, batch_idx), "probe_preds": 1}

    with pytest.raises(ValueError, match="OnlineProbe 'probe' writes its predictions to 'probe_pr"):
        make_trainer([probe()]).fit(Taken(), *loaders)


def test_values_are_the_same_for_a_second_reader_of_the_loss(plain, loaders, make_trainer):
    seen = []

    class Reader(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append(float(outputs["loss"]))

    runs = []
    for callbacks in ([Reader()], [probe(), OnlineProbeSweep(num_outputs=3), Reader()]):
        seen.clear()
        torch.manual_seed(0)
        loaders[0].generator.manual_seed(0)
        make_trainer(callbacks, max_epochs=1).fit(plain(), loaders[0])
        runs.append(list(seen))
    assert runs[0] == runs[1]
