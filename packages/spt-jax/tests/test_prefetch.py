"""Batches are made ready on a thread, on the devices where they are used, and it ends with the loop."""

import threading
import time

import jax
import numpy as np
import pytest
import spt_jax as spj
from spt_jax.placement import Placement
from spt_jax.prefetch import Prefetch


def workers():
    return [thread for thread in threading.enumerate() if thread.name == "spt-jax-prefetch"]


def test_items_are_made_a_few_ahead_and_the_thread_ends_with_the_block():
    made = []

    def produce():
        for i in range(100):
            made.append(i)
            yield i

    with Prefetch(produce(), depth=2) as ahead:
        taken = iter(ahead)
        assert next(taken) == 0
        deadline = time.monotonic() + 10
        while len(made) < 4 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.1)
        assert len(made) == 4  # one taken, two wait, one is held until there is room
    assert workers() == []
    assert len(made) == 4


def test_an_error_of_the_loader_is_raised_where_the_batch_is_taken():
    def produce():
        yield 1
        raise ValueError("planned")

    with Prefetch(produce()) as ahead:
        taken = iter(ahead)
        assert next(taken) == 1
        with pytest.raises(ValueError, match="planned"):
            next(taken)
    assert workers() == []


@pytest.mark.parametrize("parallel", [False, True])
def test_batches_come_to_their_devices_on_the_thread(small, monkeypatch, parallel):
    """Conversion, filling and the copy; the loop finds arrays that lie where the step wants them."""
    who, seen = set(), []
    batch = Placement.batch

    def told(placement, tree, **options):
        who.add(threading.current_thread().name)
        return batch(placement, tree, **options)

    trainer = spj.Trainer(max_epochs=2, data_parallel=parallel, progress=False)
    data = {name: value[:32] for name, value in small.arrays(32).items()}
    trainer._start(small.linear(), spj.ArrayLoader(data, 16), "fit")
    monkeypatch.setattr(Placement, "batch", told)
    step = trainer.engine.train

    def train(state, arrays):
        seen.append({name: leaf.sharding for name, leaf in arrays.items()})
        return step(state, arrays)

    monkeypatch.setattr(type(trainer), "_start", lambda *args: None)
    monkeypatch.setattr(trainer.engine, "train", train)
    trainer.fit(trainer._module, spj.ArrayLoader(data, 16))
    assert who == {"spt-jax-prefetch"}
    assert len(seen) == 4
    devices = len(jax.devices()) if parallel else 1
    assert all(len(s.device_set) == devices for entry in seen for s in entry.values())
    assert workers() == []


def test_a_loader_that_fails_ends_the_run_without_a_thread(small):
    class Failing:
        def __iter__(self):
            yield {name: np.asarray(value) for name, value in small.arrays(8).items()}
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        spj.Trainer(progress=False).fit(small.linear(), Failing())
    assert workers() == []
