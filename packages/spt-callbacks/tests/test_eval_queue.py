"""Queues: what they keep, what they save, and who shares them."""

import gc
import weakref

import pytest
import torch
from spt_callbacks import (
    EmbeddingCache,
    OnlineKNN,
    OnlineQueue,
    RankMe,
    find_or_create_queue_callback,
    queues_of,
)
from spt_callbacks import queue as queue_module
from spt_callbacks.queue import Queues
from spt_callbacks.ring import Ring
from torch.utils._python_dispatch import TorchDispatchMode

pytestmark = pytest.mark.filterwarnings("ignore:.*dataloader.*")


class Operations(TorchDispatchMode):
    """The names of all operations."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("rows", "copies"), [(3, 1), (6, 2), (15, 2)])
def test_an_append_is_one_or_two_slice_copies(rows, copies):
    ring = Ring(10)
    ring.append(torch.zeros(6, 4))
    storage = ring.rows.data_ptr()
    x = torch.ones(rows, 4)
    with Operations() as mode:
        ring.append(x)
    assert mode.names.count("copy_") == copies
    assert set(mode.names) <= {"copy_", "slice"}
    assert ring.rows.data_ptr() == storage


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int64, torch.float64, torch.bool])
def test_rows_keep_their_type_and_exact_values(dtype):
    ring = Ring(3)
    x = torch.tensor([2**24 + 1, 1, 0, 1]).to(dtype)
    ring.append(x)
    assert ring.newest(3).dtype == dtype
    assert torch.equal(ring.newest(3), x[1:])


def test_a_type_can_be_chosen():
    queues = Queues()
    queues.request(("a",), 4, "one", dtype=torch.float32)
    queues.append(0, {"a": torch.ones(2, 3, dtype=torch.bfloat16)}, {})
    assert queues.rings["a"].rows.dtype == torch.float32
    with pytest.raises(ValueError, match="two wants 'a' kept as torch.float16, but another"):
        queues.request(("a",), 4, "two", dtype=torch.float16)


def test_two_shapes_of_one_key_are_refused_at_setup(plain, loaders, make_trainer):
    callbacks = [OnlineKNN(input_dim=6), RankMe(target_shape=7)]
    message = r"RankMe 'rankme' expects rows of shape \(7,\) under 'embedding', but OnlineKNN 'knn'"
    with pytest.raises(ValueError, match=message):
        make_trainer(callbacks).fit(plain(), *loaders)


def test_ages_count_the_batches_since_a_row_came():
    ring = Ring(10)
    for _ in range(30):
        ring.append(torch.zeros(3))
    assert [ring.age(n) for n in (1, 3, 4, 10)] == [1, 1, 2, 4]


def test_queues_belong_to_their_trainer_and_go_with_it(plain, loaders, make_trainer):
    trainer = make_trainer([OnlineQueue("embedding", 8)], max_epochs=1)
    trainer.fit(plain(), loaders[0])
    assert list(queues_of(trainer).rings) == ["embedding"]
    alive = weakref.ref(queues_of(trainer))
    del trainer
    gc.collect()
    assert alive() is None
    assert all(ref() is not None for ref in queue_module._queues.keyrefs())


def test_a_queue_has_data_in_validation_and_at_any_time_on_request(plain, loaders, make_trainer):
    seen = []

    class Watch(OnlineQueue):
        def on_validation_epoch_end(self, trainer, pl_module):
            seen.append(None if trainer.sanity_checking else self.data.clone())

    queue = Watch("sample_idx", 10, dim=(), dtype=torch.int64)
    longer = OnlineQueue("sample_idx", 40)
    trainer = make_trainer([queue, longer], max_epochs=1)
    order = []

    class Order(plain):
        def training_step(self, batch, batch_idx):
            order.extend(batch["sample_idx"].tolist())
            return super().training_step(batch, batch_idx)

    trainer.fit(Order(), *loaders)
    assert seen[0] is None
    assert seen[1].tolist() == order[-10:]
    assert queue.newest().tolist() == order[-10:]
    assert queue.newest(3).tolist() == order[-3:]
    assert queue.actual_queue_length == longer.actual_queue_length == 40
    assert queue.data is None


def test_queues_are_saved_once_and_on_request_only(plain, loaders, make_trainer, tmp_path):
    def keys_of(callbacks):
        trainer = make_trainer(callbacks, max_epochs=1)
        trainer.fit(plain(), *loaders)
        trainer.save_checkpoint(tmp_path / "a.ckpt")
        saved = torch.load(tmp_path / "a.ckpt", weights_only=True)
        assert not any("queue" in key for key in saved["state_dict"])
        return saved["callbacks"]

    assert keys_of([OnlineKNN(queue_length=20), RankMe(queue_length=30)]) == {}
    both = keys_of(
        [OnlineKNN(queue_length=20, save_queues=True), RankMe(queue_length=30, save_queues=True)]
    )
    (embedding,), (label,) = both["OnlineKNN[name=knn]"]["queues"]
    assert (len(embedding), len(label)) == (30, 20)  # each shared ring at its largest length
    assert both["RankMe[name=rankme]"]["queues"] == [None]


@pytest.mark.parametrize("length", [5, 20, 200])
def test_resuming_with_another_length_keeps_the_newest_rows(
    plain, loaders, make_trainer, tmp_path, length
):
    def trainer_with(n):
        queue = OnlineQueue("sample_idx", n, save_queues=True)
        queue.__class__ = type("Fixed", (OnlineQueue,), {"state_key": "queue"})
        return queue, make_trainer([queue], max_epochs=1)

    queue, trainer = trainer_with(20)
    trainer.fit(plain(), loaders[0])
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    resumed, again = trainer_with(length)
    again.validate(plain(), loaders[1], ckpt_path=tmp_path / "a.ckpt", verbose=False)
    assert resumed.newest().tolist() == queue.newest()[-length:].tolist()
    again.fit_loop.max_epochs = 1
    again.fit(plain(), loaders[0], ckpt_path=tmp_path / "a.ckpt")
    assert len(resumed.newest()) == min(length, 20)


def test_a_restored_bank_votes_before_any_training(plain, loaders, make_trainer, tmp_path):
    module = plain()
    first = make_trainer([OnlineKNN(queue_length=96, k=5, save_queues=True)], max_epochs=4)
    first.fit(module, *loaders)
    first.save_checkpoint(tmp_path / "a.ckpt")
    expected = first.validate(module, loaders[1], verbose=False)[0]
    second = make_trainer([OnlineKNN(queue_length=96, k=5, save_queues=True)])
    found = second.validate(plain(), loaders[1], ckpt_path=tmp_path / "a.ckpt", verbose=False)[0]
    assert found["eval/knn_acc"] == expected["eval/knn_acc"] > 0.8


def test_rows_of_other_numbers_of_ranks_are_shared_out_by_age(monkeypatch):
    shards = [torch.tensor([10, 20, 30, 40]), torch.tensor([31, 41])]
    monkeypatch.setattr(queue_module, "world_size", lambda: 1)
    queues = Queues()
    queues.request(("a",), 4, "one")
    queues.restore(("a",), [shards])
    assert queues.rings["a"].newest(4).tolist() == [30, 31, 40, 41]
    for world, rank, expected in [(3, 0, [10, 31]), (3, 2, [30, 41]), (2, 1, [31, 41])]:
        monkeypatch.setattr(queue_module, "world_size", lambda world=world: world)
        monkeypatch.setattr(queue_module, "rank", lambda rank=rank: rank)
        queues.restore(("a",), [shards])
        assert queues.rings["a"].newest(4).tolist() == expected


def test_dotted_names_of_cached_layers_feed_the_queues(plain, loaders, make_trainer):
    cache = EmbeddingCache(["encoder.0"])
    knn = OnlineKNN(input="encoder.0", queue_length=96, k=5)
    rank = RankMe(target=lambda outputs, batch: outputs["encoder.0"] * 2, queue_length=96)
    trainer = make_trainer([knn, rank, cache], max_epochs=1)
    trainer.fit(plain(), *loaders)
    assert {"eval/knn_acc", "rankme"} <= set(trainer.callback_metrics)


def test_a_queue_is_found_or_made(plain, loaders, make_trainer):
    made = []

    class Asks(plain):
        def on_train_start(self):
            made.append(find_or_create_queue_callback(self.trainer, "embedding", 12, dim=6))
            made.append(find_or_create_queue_callback(self.trainer, "embedding", 12))

    trainer = make_trainer([], max_epochs=1, enable_checkpointing=True)
    trainer.fit(Asks(), loaders[0])
    assert made[0] is made[1]
    assert len(made[0].newest()) == 12
    assert trainer.callbacks.index(made[0]) < trainer.callbacks.index(trainer.checkpoint_callback)
    with pytest.raises(ValueError, match=r"no queue of 'label' with 9 rows.*\('embedding', 12\)"):
        find_or_create_queue_callback(trainer, "label", 9, create_if_missing=False)
    with pytest.raises(ValueError, match=r"rows of shape \(7,\) under 'embedding'"):
        find_or_create_queue_callback(trainer, "embedding", 12, dim=7)
    with pytest.raises(ValueError, match="`queue_length` of RankMe 'rankme' must be >= 1, got 0"):
        RankMe(queue_length=0)


def test_records_stay_aligned_when_a_callback_joins_later(plain, loaders, make_trainer):
    first, second = OnlineQueue("sample_idx", 50), OnlineKNN("k", "sample_idx", "y", 50)
    trainer = make_trainer([first], max_epochs=1)
    trainer.fit(plain(), loaders[0])
    trainer.callbacks.append(second)
    trainer.fit_loop.max_epochs = 2
    trainer.limit_train_batches = 2
    trainer.fit(plain(), loaders[0])
    features, labels = second.recent(trainer)
    assert len(features) == len(labels) == 16
    assert torch.equal(features % 3, labels)
    assert len(first.newest()) == 50
