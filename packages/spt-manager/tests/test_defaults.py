"""What the Manager adds to a trainer by its settings, and to no other trainer."""

import re

import lightning as pl
import pytest
import torch
from lightning.pytorch.callbacks import (
    Checkpoint,
    ModelCheckpoint,
    ModelSummary,
    RichProgressBar,
    TQDMProgressBar,
)
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel
from loguru import logger
from spt_callbacks import CleanUpCallback, TeacherStudentCallback, default_callbacks
from spt_callbacks import ModuleSummary as OurSummary
from spt_callbacks.factories import DEFAULTS
from spt_manager import Manager, config_context
from spt_manager.config import CALLBACKS
from spt_manager.progress import LineProgress

pytestmark = pytest.mark.filterwarnings("ignore:.*dataloader.*", "ignore:.*fast_dev_run.*")


@pytest.fixture(autouse=True)
def cache(tmp_path):
    with config_context(cache_dir=str(tmp_path / "cache")):
        yield tmp_path / "cache"


def make_trainer(**options):
    brief = {"accelerator": "cpu", "max_epochs": 1, "limit_train_batches": 2}
    return pl.Trainer(**{**brief, "limit_val_batches": 1, **options})


def fit(trainer, module=None):
    run = Manager(trainer, module or BoringModel(), BoringDataModule(), seed=0)
    run()
    return run


def kinds(trainer):
    return [type(entry) for entry in trainer.callbacks]


def test_each_default_callback_can_be_left_out_and_none_comes_twice(capsys):
    shown = kinds(fit(make_trainer()).trainer)
    defaults = {name: type(make()) for name, make in DEFAULTS.items()}
    assert set(CALLBACKS) == {*defaults, "progress_bar"}
    assert all(shown.count(kind) == 1 for kind in defaults.values())
    assert ModelSummary not in shown
    savers = [i for i, kind in enumerate(shown) if issubclass(kind, Checkpoint)]
    assert max(shown.index(kind) for kind in defaults.values()) < min(savers)
    with config_context(default_callbacks=dict.fromkeys(CALLBACKS, False)):
        bare = kinds(fit(make_trainer()).trainer)
    assert not set(bare) & {*defaults.values(), LineProgress}
    assert {TQDMProgressBar, ModelSummary} <= set(bare) or RichProgressBar in bare
    mine = default_callbacks()
    trainer = fit(make_trainer(callbacks=list(mine))).trainer
    assert all(entry in trainer.callbacks for entry in mine)
    assert all(kinds(trainer).count(kind) == 1 for kind in defaults.values())


def test_a_trainer_that_the_manager_was_not_given_stays_as_it_is():
    before = kinds(make_trainer())
    fit(make_trainer())
    other = make_trainer()
    assert kinds(other) == before
    assert not (set(before) & {type(make()) for make in DEFAULTS.values()})


@pytest.mark.parametrize(
    ("setting", "kind"),
    [("simple", LineProgress), ("rich", RichProgressBar), ("none", None), ("auto", LineProgress)],
)
def test_the_progress_bar_is_the_one_of_the_settings(setting, kind):
    with config_context(progress_bar=setting):
        trainer = fit(make_trainer()).trainer
    assert type(trainer.progress_bar_callback) is (kind or type(None))
    with config_context(progress_bar=setting):
        off = fit(make_trainer(enable_progress_bar=False, enable_model_summary=False)).trainer
    assert off.progress_bar_callback is None
    assert not any(issubclass(kind, OurSummary) for kind in kinds(off))


def test_a_line_of_progress(capsys):
    class Model(BoringModel):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)["loss"]
            self.log("fit/loss", loss.detach() * 0 + 0.25, prog_bar=True)
            return loss

    bar = LineProgress(every_n_batches=2)
    fit(make_trainer(max_epochs=2, limit_train_batches=5, callbacks=[bar]), Model())
    lines = [line for line in capsys.readouterr().out.splitlines() if "batches/s" in line]
    rates = [float(re.findall(r"([\d.]+) batches/s", line)[0]) for line in lines]
    assert min(rates) > 0  # in later epochs too
    heads = [re.sub(r"[\d.]+ batches/s", "N batches/s", line) for line in lines]
    assert [head.split("  ")[:2] for head in heads] == [
        [f"epoch {epoch}", f"batch {done}/5"] for epoch in (1, 2) for done in (2, 4, 5)
    ]
    assert all("N batches/s" in head and "fit/loss 0.25" in head for head in heads)
    bar.disable()
    fit(make_trainer(callbacks=[bar]))
    assert "batches/s" not in capsys.readouterr().out
    bar.enable()
    assert bar.enabled
    with pytest.raises(ValueError, match="`every_n_batches` must be >= 1, got 0"):
        LineProgress(0)


def test_a_cleanup_is_added_once_it_is_asked_for(cache):
    assert CleanUpCallback not in kinds(fit(make_trainer()).trainer)
    with config_context(cleanup={"checkpoints": False}):
        run = fit(make_trainer())
    (added,) = [entry for entry in run.trainer.callbacks if type(entry) is CleanUpCallback]
    assert (added.keep_checkpoints, added.keep_logs, added.keep_hydra) == (False, True, False)
    left = {path.name for path in (run.run_dir / "checkpoints").glob("*.ckpt")}
    assert not any(name.startswith("epoch=") for name in left)
    assert (run.run_dir / "sidecar.json").exists()


class Pair(torch.nn.Module):
    """A student and its teacher, as wrappers of any library have them."""

    def __init__(self):
        super().__init__()
        self.student, self.teacher = torch.nn.Linear(32, 2), torch.nn.Linear(32, 2)
        self.moved = 0

    def update_teacher(self):
        self.moved += 1

    def update_ema_coefficient(self, *args):
        pass


class WithTeacher(BoringModel):
    def __init__(self):
        super().__init__()
        self.pair = Pair()


def test_a_teacher_is_moved_by_a_callback_that_is_there_once():
    module = WithTeacher()
    trainer = fit(make_trainer(), module).trainer
    assert kinds(trainer).count(TeacherStudentCallback) == 1
    assert module.pair.moved == 2
    mine = TeacherStudentCallback()
    trainer = fit(make_trainer(callbacks=[mine]), WithTeacher()).trainer
    assert [e for e in trainer.callbacks if isinstance(e, TeacherStudentCallback)] == [mine]
    assert TeacherStudentCallback not in kinds(fit(make_trainer()).trainer)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("AdamW", {"type": "AdamW", "exclude_bias_norm": True}),
        ({"optimizer": "SGD"}, {"type": "SGD", "exclude_bias_norm": True}),
        (
            {"optimizer": {"type": "SGD", "lr": 1.0}, "interval": "step"},
            {"type": "SGD", "lr": 1.0, "exclude_bias_norm": True},
        ),
        (
            {"optimizer": {"type": "SGD", "exclude_bias_norm": False}},
            {"type": "SGD", "exclude_bias_norm": False},
        ),
    ],
)
def test_bias_and_norm_are_excluded_where_the_module_says_nothing(given, expected):
    class Model(BoringModel):
        def __init__(self):
            super().__init__()
            self.optim = given

    with config_context(exclude_bias_norm=True):
        run = Manager(make_trainer(), Model(), BoringDataModule())
        found = run.instantiated_module.optim
    assert found["optimizer"] == expected
    if isinstance(given, dict):
        assert found.get("interval") == given.get("interval")
    assert Manager(make_trainer(), Model(), BoringDataModule()).instantiated_module.optim is given


def test_a_module_without_a_grammar_is_left_alone():
    factory = object()

    class Model(BoringModel):
        optim = factory

    with config_context(exclude_bias_norm=True):
        run = Manager(make_trainer(), Model(), BoringDataModule())
        assert run.instantiated_module.optim is factory


def test_savers_that_point_elsewhere_are_sent_to_the_run(tmp_path):
    said = []
    sink = logger.add(lambda message: said.append(str(message)), level="WARNING")
    try:
        saver = ModelCheckpoint(dirpath=tmp_path / "elsewhere", filename="mine")
        run = fit(make_trainer(callbacks=[saver]))
    finally:
        logger.remove(sink)
    assert any("Checkpoints go to" in text and "elsewhere" in text for text in said)
    assert (run.run_dir / "checkpoints" / "mine.ckpt").exists()
    assert not (tmp_path / "elsewhere").exists()
