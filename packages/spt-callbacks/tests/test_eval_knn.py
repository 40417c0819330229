"""kNN by every distance, bounded in memory, with the classes of the task."""

import numpy as np
import pytest
import torch
import torchmetrics
from loguru import logger
from spt_callbacks import OnlineKNN, knn_vote
from spt_callbacks.evaluation.nearest import Bank, largest
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

pytestmark = pytest.mark.filterwarnings("ignore:.*dataloader.*")


def drawn(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


DISTANCES = {
    "euclidean": lambda a, b: np.linalg.norm(a - b),
    "squared_euclidean": lambda a, b: ((a - b) ** 2).sum(),
    "manhattan": lambda a, b: np.abs(a - b).sum(),
    "cosine": lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b),
}


@pytest.mark.parametrize("chunk_size", [-1, 1, 7, 40])
@pytest.mark.parametrize("metric", sorted(DISTANCES))
def test_neighbours_and_votes_by_their_definition(metric, chunk_size):
    bank, queries, labels = drawn(40, 5, 0), drawn(9, 5, 1), torch.arange(40) % 4
    measure = DISTANCES[metric]
    table = np.array(
        [[measure(q, b) for b in bank.double().numpy()] for q in queries.double().numpy()]
    )
    order = np.argsort(-table if metric == "cosine" else table, axis=1)[:, :6]
    near = np.take_along_axis(table, order, 1)
    found, index = Bank(bank, metric, chunk_size).nearest(queries, 6)
    assert index.tolist() == order.tolist()
    np.testing.assert_allclose(found, near, rtol=1e-4, atol=1e-5)

    weights = np.exp(near / 0.3) if metric == "cosine" else 1 / (near + 0.3)
    expected = np.zeros((9, 5))
    for i in range(9):
        for j in range(6):
            expected[i, labels[order[i, j]]] += weights[i, j] / weights[i].sum()
    scores = knn_vote(
        bank, labels, queries, num_classes=5, k=6, temperature=0.3, chunk_size=chunk_size,
        distance_metric=metric,
    )  # fmt: skip
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("width", [31, 320, 333, 1000])
def test_the_largest_of_groups_are_the_largest(width):
    x = drawn(50, width, 0).round(decimals=1)  # with ties
    values, index = largest(x, 9)
    assert torch.equal(values, x.topk(9, dim=1).values)
    assert torch.equal(x.gather(1, index), values)
    assert all(len(set(row)) == 9 for row in index.tolist())


@pytest.mark.parametrize("metric", sorted(DISTANCES))
def test_a_bank_of_many_chunks_is_that_of_one(metric):
    bank, queries = drawn(9000, 4, 0), drawn(20, 4, 1)
    whole = Bank(bank, metric, 9000).nearest(queries, 20)
    for size in (-1, 700):
        found = Bank(bank, metric, size).nearest(queries, 20)
        torch.testing.assert_close(found[0], whole[0], rtol=1e-4, atol=1e-5)
        assert (found[1] == whole[1]).double().mean() > 0.99  # rounding may swap two of a length


@pytest.mark.parametrize("metric", sorted(DISTANCES))
def test_memory_is_bounded_by_the_chunk(metric):
    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for x in out if isinstance(out, (tuple, list)) else [out]:
                self.size = max(self.size, x.numel())
            return out

    bank, queries = drawn(5000, 4, 0), drawn(50, 4, 1)
    prepared = Bank(bank, metric, chunk_size=100)
    with Largest() as mode:
        prepared.nearest(queries, 10)
    assert 50 * 100 <= mode.size <= max(50 * (100 + 20), 5000 * 4)


def test_many_queries_are_those_one_by_one():
    bank, queries = drawn(90, 4, 0), drawn(600, 4, 1)
    prepared = Bank(bank)
    values, index = prepared.nearest(queries, 5)
    assert values.shape == index.shape == (600, 5)
    for i in (0, 255, 256, 599):
        alone = prepared.nearest(queries[i : i + 1], 5)
        torch.testing.assert_close(values[i : i + 1], alone[0])
        assert torch.equal(index[i : i + 1], alone[1])
    assert prepared.nearest(queries[:0], 5)[0].shape == (0, 5)


def test_distances_are_in_full_precision_under_autocast():
    bank, queries = drawn(90, 64, 0), drawn(9, 64, 1)
    expected = Bank(bank).nearest(queries, 5)
    with torch.autocast("cpu", torch.bfloat16):
        found = Bank(bank).nearest(queries, 5)
    assert torch.equal(found[0], expected[0])


def test_bad_settings_are_named():
    with pytest.raises(
        ValueError, match=r"`distance_metric` must be one of \['cosine', .*'hamming'"
    ):
        OnlineKNN(distance_metric="hamming")
    with pytest.raises(ValueError, match="`chunk_size` must be -1 or >= 1, got -2"):
        Bank(torch.ones(1, 1), chunk_size=-2)
    for setting, value in (("k", 0), ("temperature", -1), ("chunk_size", 0), ("num_classes", 0)):
        with pytest.raises(ValueError, match=f"`{setting}`.* must be .*, got {value}"):
            OnlineKNN(**{setting: value})


def test_a_label_beyond_the_classes_is_named(plain, loaders, make_trainer):
    knn = OnlineKNN(name="k", queue_length=9, num_classes=2)
    with pytest.raises(
        ValueError, match="OnlineKNN 'k' was told 2 classes, but 'label' holds .* 2"
    ):
        make_trainer([knn]).fit(plain(), *loaders)


def accuracy_with(plain, loaders, make_trainer, **kwargs):
    knn = OnlineKNN(queue_length=96, k=5, **kwargs)
    trainer = make_trainer([knn], max_epochs=3)
    trainer.fit(plain(), *loaders)
    return trainer.callback_metrics, knn


@pytest.mark.parametrize("metric", sorted(DISTANCES))
def test_the_callback_takes_any_distance(plain, loaders, make_trainer, metric):
    found, _ = accuracy_with(plain, loaders, make_trainer, distance_metric=metric, verbose=True)
    assert found["eval/knn_acc"] > 0.8
    assert found["eval/knn_bank_age"] == 6


def test_the_number_of_classes_is_that_of_the_task(plain, loaders, make_trainer):
    widths = []

    class Spy(torchmetrics.classification.MulticlassAccuracy):
        def update(self, preds, target):
            widths.append(preds.shape[1])
            super().update(preds, target)

    accuracy_with(plain, loaders, make_trainer, metrics={"a": Spy(7)})
    assert set(widths) == {7}

    class Told(plain):
        num_classes = 5

    found, _ = accuracy_with(Told, loaders, make_trainer)
    assert "eval/knn_top5" not in found
    Told.num_classes = 9
    found, _ = accuracy_with(Told, loaders, make_trainer)
    assert found["eval/knn_top5"] >= found["eval/knn_acc"]


def test_scores_are_there_for_later_callbacks(plain, loaders, make_trainer):
    import lightning as pl

    class Reader(pl.Callback):
        seen = None

        def on_validation_batch_end(self, trainer, pl_module, outputs, batch, *args):
            self.seen = outputs.get("knn_preds")

    reader = Reader()
    make_trainer([OnlineKNN(queue_length=96), reader]).fit(plain(), *loaders)
    assert reader.seen.shape == (8, 3)
    torch.testing.assert_close(reader.seen.sum(1), torch.ones(8))


def test_a_label_that_only_the_step_returns(plain, loaders, make_trainer):
    class Renames(plain):
        def training_step(self, batch, batch_idx):
            return {**super().training_step(batch, batch_idx), "cls": batch["label"].repeat(2)}

        def validation_step(self, batch, batch_idx):
            return {**super().validation_step(batch, batch_idx), "cls": batch["label"]}

    found, _ = accuracy_with(Renames, loaders, make_trainer, target="cls")
    assert found["eval/knn_acc"] > 0.8


def test_a_bank_of_a_loader_is_encoded_as_the_model_is_now(
    plain, loaders, make_trainer, make_samples
):
    bank = DataLoader(make_samples(30, seed=4), 8)
    knn = OnlineKNN(
        bank_loader=bank,
        k=5,
        encode=lambda module, batch: {"embedding": module.encoder(batch["x"])},
    )
    seen = []

    class Watch(OnlineKNN):
        def on_validation_epoch_start(self, trainer, pl_module):
            pl_module.encoder[1].train()  # a layer that validation leaves in its own mode
            super().on_validation_epoch_start(trainer, pl_module)
            seen.append((self.bank.rows.clone(), pl_module.encoder[1].training))

    knn.__class__ = Watch
    trainer = make_trainer([knn], max_epochs=2)
    module = plain()
    trainer.fit(module, *loaders)
    assert trainer.callback_metrics["eval/knn_acc"] > 0.7
    module.eval()
    with torch.no_grad():
        rows = torch.cat([module.encoder(batch["x"]) for batch in bank])
    torch.testing.assert_close(seen[-1][0], torch.nn.functional.normalize(rows, dim=1))
    assert seen[-1][1] is True


def test_an_empty_bank_is_told_once_a_validation(plain, loaders, make_trainer):
    found = []
    sink = logger.add(lambda message: found.append(str(message)), level="WARNING")
    metrics = make_trainer([OnlineKNN()]).validate(plain(), loaders[1], verbose=False)
    logger.remove(sink)
    assert metrics == [{}]
    assert len(found) == 1
    assert "OnlineKNN 'knn' has no training features yet" in found[0]


def test_features_of_several_dimensions_are_flattened(plain, loaders, make_trainer):
    class Maps(plain):
        def training_step(self, batch, batch_idx):
            state = super().training_step(batch, batch_idx)
            return {**state, "embedding": state["embedding"].view(-1, 2, 3)}

        def validation_step(self, batch, batch_idx):
            return {"embedding": self.encoder(batch["x"]).view(-1, 2, 3)}

    found, _ = accuracy_with(Maps, loaders, make_trainer, input_dim=(2, 3))
    assert found["eval/knn_acc"] > 0.8
    with pytest.raises(
        ValueError, match=r"OnlineKNN 'knn' was told `input_dim=6`, but 'embedding'"
    ):
        accuracy_with(Maps, loaders, make_trainer, input_dim=6)
