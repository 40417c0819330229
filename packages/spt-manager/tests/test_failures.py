"""What goes wrong around a run: signals, workers, callbacks, full disks, a second Manager."""

import json
import os
import pickle
import resource
import signal
import sys
import time
from pathlib import Path

import lightning as pl
import pytest
import torch
from loguru import logger
from spt_manager import Manager, RunInUseError, Stopped, config_context
from spt_manager import set as set_config
from spt_manager.checkpointing import AtomicCheckpointIO, is_whole, newest_good
from spt_manager.place import RunLock
from spt_manager.workers import QuietWorker
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parent))
import test_exact_resume as parts
from forked import Forked

pytestmark = pytest.mark.filterwarnings("ignore:.*dataloader.*")
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)


@pytest.fixture
def cache(tmp_path):
    with config_context(cache_dir=str(tmp_path / "cache"), **parts.QUIET):
        yield tmp_path / "cache"


@pytest.fixture
def messages():
    found = []
    sink = logger.add(lambda message: found.append(str(message)), level="INFO")
    yield found
    logger.remove(sink)


def sidecar(run):
    return json.loads((run.run_dir / "sidecar.json").read_text())


def assert_goes_on_exactly(run_id):
    again = parts.start("plain", run_id=run_id)
    again()
    whole = parts.start("plain")
    whole()
    parts.assert_same(parts.outcome(whole), parts.outcome(again))


class At(pl.Callback):
    """Calls a function at the start of a chosen training batch."""

    def __init__(self, step, function):
        self.step, self.function = step, function

    def on_train_batch_start(self, trainer, *args):
        if trainer.global_step == self.step:
            self.function(trainer)


def interrupt(trainer):
    os.kill(os.getpid(), signal.SIGINT)


def forked(tmp_path, function, *args):
    """Call a function of this file in a process, and a process group, of its own; it has ended."""
    process = Forked(tmp_path / "log", "test_failures", function, *args)
    process.end()
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_stops_with_a_checkpoint_and_handlers_are_put_back(cache, number):
    before = [signal.getsignal(each) for each in SIGNALS]
    run = parts.start("plain", parts.SignalAt("train", 1, number))
    with pytest.raises(Stopped, match="preempted and can be continued") as stopped:
        run()
    assert stopped.value.code == 75
    assert sidecar(run)["status"] == "preempted"
    assert torch.load(run.run_dir / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 2
    assert [signal.getsignal(each) for each in SIGNALS] == before


def train_after_a_held_back_warning(cache):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    os.kill(os.getpid(), signal.SIGUSR1)
    set_config(cache_dir=cache, **parts.QUIET)
    parts.start("plain", run_id="mine", num_sanity_val_steps=0)()


def test_a_warning_that_was_held_back_until_the_manager_came_is_heeded(tmp_path, cache):
    """As `spt` holds signals back while torch is imported."""
    done = forked(tmp_path, "train_after_a_held_back_warning", str(cache))
    assert done.end() == 75, done.output()
    (state,) = [json.loads(path.read_text()) for path in cache.rglob("sidecar.json")]
    last = Path(state["run_dir"]) / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 1
    assert state["status"] == "preempted"


def test_the_first_ctrl_c_saves_and_the_run_goes_on_exactly(cache):
    first = parts.start("plain", At(5, interrupt), run_id="mine")
    with pytest.raises(Stopped, match="interrupted") as stopped:
        first()
    assert stopped.value.code == 130
    assert sidecar(first)["status"] == "interrupted"
    assert_goes_on_exactly("mine")


def test_the_second_ctrl_c_ends_at_once(cache):
    def twice(trainer):
        interrupt(trainer)
        time.sleep(0.01)
        interrupt(trainer)
        time.sleep(5)

    run = parts.start("plain", At(2, twice))
    began = time.monotonic()
    with pytest.raises((KeyboardInterrupt, SystemExit), match="^1?$"):
        run()
    assert time.monotonic() - began < 5
    assert sidecar(run)["status"] == "interrupted"
    assert not (run.run_dir / "checkpoints" / "last.ckpt").exists()


class Broken(parts.Rows):
    def __getitem__(self, i):
        if i == 7:
            raise ValueError("planned failure of row 7")
        return super().__getitem__(i)


class BrokenData(pl.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(Broken(), batch_size=4, num_workers=1)


def test_a_failure_in_a_worker_stands_in_the_sidecar(cache):
    run = parts.start("plain")
    run._given["data"] = BrokenData()
    with pytest.raises(ValueError, match="planned failure of row 7"):
        run()
    state = sidecar(run)
    assert state["status"] == "failed"
    assert "DataLoader worker process 0" in state["error"]
    assert "planned failure of row 7" in state["error"]


def test_a_failure_in_a_callback_stands_in_the_sidecar(cache):
    def fail(trainer):
        raise KeyError("planned")

    run = parts.start("plain", At(2, fail))
    with pytest.raises(KeyError, match="planned"):
        run()
    assert sidecar(run)["status"] == "failed"
    assert "on_train_batch_start" in sidecar(run)["error"]


def test_a_run_that_died_before_its_first_checkpoint_begins_anew(cache):
    """Rows that were written until then would come twice."""

    def die(trainer):
        trainer.loggers[0].experiment.save()
        raise RuntimeError("planned")

    first = parts.start("plain", At(2, die), run_id="mine")
    with pytest.raises(RuntimeError, match="planned"):
        first()
    assert len((first.run_dir / "metrics.csv").read_text().splitlines()) > 1
    assert_goes_on_exactly("mine")


def signal_the_process_group(cache, name):
    def signal_all(trainer):
        os.killpg(0, getattr(signal, name))

    set_config(cache_dir=cache, **parts.QUIET)
    parts.start("workers", At(5, signal_all), run_id=name)()


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 75), ("SIGINT", 130)])
def test_a_signal_to_the_whole_process_group_leaves_the_workers(tmp_path, cache, name, code):
    """As a scheduler or a terminal sends it; a worker that died would fail the batch."""
    done = forked(tmp_path, "signal_the_process_group", str(cache), name)
    assert done.end() == code, done.output()
    again = parts.start("workers", run_id=name)
    again()
    assert [attempt["status"] for attempt in sidecar(again)["attempts"]][1:] == ["completed"]


def outlive_one_sigterm():
    QuietWorker(print)(3)
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
        os.kill(os.getpid(), number)
    print("alive", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_worker_outlives_one_sigterm_only(tmp_path):
    done = forked(tmp_path, "outlive_one_sigterm")
    assert done.output() == "3\nalive\n"
    assert done.end() == -signal.SIGTERM
    assert QuietWorker(None) == QuietWorker(None)


def test_a_second_manager_on_one_directory_is_refused(cache):
    seen = []

    def another(trainer):
        with pytest.raises(RunInUseError, match="in use by another Manager of this process"):
            parts.start("plain", run_id="mine")()
        seen.append(True)

    run = parts.start("plain", At(1, another), run_id="mine")
    run()
    assert seen == [True]
    assert sidecar(run)["status"] == "completed"


def lock(folder):
    RunLock(Path(folder)).acquire()


def test_another_process_on_one_directory_is_refused(tmp_path):
    mine = RunLock(tmp_path)
    mine.acquire()
    refused = forked(tmp_path.parent, "lock", str(tmp_path))
    assert refused.end() == 1
    assert f"is in use by process {os.getpid()} on" in refused.output()
    assert "give this run another `run_id`" in refused.output()
    mine.release()
    assert forked(tmp_path.parent, "lock", str(tmp_path)).end() == 0


def test_a_read_only_cache_dir_is_refused_before_training(tmp_path):
    folder = tmp_path / "read-only"
    folder.mkdir()
    for path in (tmp_path, *list(tmp_path.parents)[:2]):
        path.chmod(0o755)
    folder.chmod(0o555)
    run = parts.start("plain")
    with config_context(cache_dir=str(folder), **parts.QUIET):
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            with pytest.raises(OSError, match=r"read-only' cannot be written \(Permission denied"):
                run()
        finally:
            if root:
                os.seteuid(0)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("background", [False, True])
def test_a_disk_that_is_full_for_a_while(cache, messages, background):
    """The kernel refuses to write the second epoch's checkpoint; training goes on, loudly."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = []

    def fill(trainer):
        folder = Path(trainer.default_root_dir) / "checkpoints"
        size = (folder / "last.ckpt").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size * 3 // 4, limits[1]))

    def free(trainer):
        trainer.strategy.checkpoint_io.wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        last = newest_good(Path(trainer.default_root_dir) / "checkpoints")
        kept.append(torch.load(last, weights_only=True)["global_step"])

    try:
        with config_context(background_checkpoint=background):
            run = parts.start("plain", own=[At(5, fill), At(9, free)])
            run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert kept == [4]
    assert any("could not be written" in text and "Training goes on" in text for text in messages)
    last = run.run_dir / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 12
    assert sidecar(run)["status"] == "completed"
    assert list(run.run_dir.rglob("*.tmp")) == []


def test_what_is_saved_in_the_background_is_what_was_there(tmp_path):
    io = AtomicCheckpointIO(background=True)
    weight = torch.zeros(300, 300)
    for step in range(3):
        weight += 1
        io.save_checkpoint({"weight": weight, "step": step, "n": [weight]}, tmp_path / "last.ckpt")
        weight += 10
    io.wait()
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert (saved["weight"][0, 0], saved["n"][0][0, 0], saved["step"]) == (23.0, 23.0, 2)
    assert torch.load(tmp_path / "last-previous.ckpt", weights_only=True)["weight"][0, 0] == 12.0
    assert all(is_whole(path) for path in tmp_path.iterdir())


def test_the_umask_decides_who_reads_a_checkpoint(tmp_path):
    old = os.umask(0o027)
    try:
        AtomicCheckpointIO().save_checkpoint({"x": 1}, tmp_path / "last.ckpt")
    finally:
        os.umask(old)
    assert (tmp_path / "last.ckpt").stat().st_mode & 0o777 == 0o640


class Odd:
    """What a checkpoint may hold that only pickle can make."""


class AddsOdd(pl.Callback):
    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        checkpoint["odd"] = Odd()


def test_weights_only_is_left_off_in_words_alone(cache, tmp_path):
    first = parts.start("plain", own=[AddsOdd()])
    first()
    path = first.run_dir / "checkpoints" / "last.ckpt"
    for words, expected in (({}, None), ({"weights_only": False}, 12)):
        run = parts.start("plain")
        run = Manager(**run._given, seed=5, ckpt_path=path, **words)
        if expected is None:
            with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
                run()
        else:
            run()
            assert run.trainer.global_step == expected


def test_a_manager_needs_no_main_thread(cache):
    import threading

    failures = []

    def work():
        try:
            parts.start("plain", max_epochs=1)()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failures == []
