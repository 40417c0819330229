"""Teachers, weight decay, cached activations, writing, stopping."""

import copy
import itertools
import math
from pathlib import Path

import lightning as pl
import numpy as np
import pytest
import torch
from spt_callbacks import (
    EarlyStopping,
    EmbeddingCache,
    EpochMilestones,
    HPMetricLogger,
    OnlineProbe,
    OnlineWriter,
    TeacherStudentCallback,
    WeightDecayUpdater,
    ema_update,
)
from spt_callbacks.training.teacher_student import find_teachers
from torch import nn
from torch.utils.data import DataLoader

pytestmark = pytest.mark.filterwarnings("ignore:.*dataloader.*")

GOLDEN = Path(__file__).parent / "golden"


class Pair(nn.Module):
    """A student and its teacher; keeps every coefficient that it was given."""

    def __init__(self):
        super().__init__()
        self.student = nn.Linear(4, 4)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.ema_coefficient = 0.5
        self.seen, self.trail = [], []

    def update_ema_coefficient(self, step, total):
        self.seen.append((step, total))

    def update_teacher(self):
        ema_update(self.teacher, self.student, self.ema_coefficient)
        self.trail.append(self.student.weight.detach().clone())


class Plain(pl.LightningModule):
    """Two groups of parameters, one of them without decay."""

    def __init__(self, optimizers=1):
        super().__init__()
        self.pair = Pair()
        self.head = nn.Linear(4, 2)
        self.automatic_optimization = optimizers == 1
        self.decays = []

    def training_step(self, batch, batch_idx):
        loss = self.head(self.pair.student(batch["x"])).square().mean()
        if not self.automatic_optimization:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                optimizer.step()
        return {"loss": loss}

    def validation_step(self, batch, batch_idx):
        self.log("score", float(self.current_epoch))
        return {"embedding": self.pair.student(batch["x"])}

    def on_train_batch_end(self, *args):
        self.decays.append(
            [g["weight_decay"] for o in self.trainer.optimizers for g in o.param_groups]
        )

    def configure_optimizers(self):
        groups = [
            {"params": [self.pair.student.weight], "weight_decay": 0.02},
            {"params": [self.head.weight], "weight_decay": 0.01},
            {"params": [self.pair.student.bias, self.head.bias], "weight_decay": 0.0},
        ]
        if self.automatic_optimization:
            return torch.optim.SGD(groups, lr=0.1)
        return [torch.optim.SGD(groups[:1], lr=0.1), torch.optim.SGD(groups[1:], lr=0.1)]


def loader(n=8, batch_size=2):
    generator = torch.Generator().manual_seed(0)
    rows = [{"x": torch.randn(4, generator=generator), "label": i % 2} for i in range(n)]
    return DataLoader(rows, batch_size=batch_size)


def train(tmp_path, module, callbacks, val=False, ckpt_path=None, **settings):
    trainer = pl.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 2, "num_sanity_val_steps": 0, **settings},
        callbacks=callbacks,
    )
    trainer.fit(module, loader(), loader(4) if val else None, ckpt_path=ckpt_path)
    return trainer


def test_ema_gives_the_official_values():
    golden = np.load(GOLDEN / "ema_update.npz")
    names = ["fc.weight", "fc.bias", "bn.weight", "bn.bias"]
    student = nn.ModuleDict({"fc": nn.Linear(4, 3), "bn": nn.BatchNorm1d(3)}).double()
    teacher = copy.deepcopy(student)
    teacher.load_state_dict({n: torch.tensor(golden[f"teacher0.{n}"]) for n in names}, strict=False)
    for step, momentum in enumerate(golden["momentum"]):
        keys = [k.removeprefix("student.") for k in golden.files if k.startswith("student.")]
        student.load_state_dict(
            {k: torch.tensor(golden[f"student.{k}"][step]) for k in keys}, strict=False
        )
        ema_update(teacher, student, float(momentum))
        for name in names:
            expected = torch.tensor(golden[f"teacher.{name}"][step])
            torch.testing.assert_close(
                teacher.get_parameter(name).data, expected, rtol=0, atol=1e-12
            )
        copied = torch.tensor(golden["buffers_copied.bn.running_mean"][step])
        torch.testing.assert_close(teacher["bn"].running_mean, copied, rtol=0, atol=1e-12)


def test_counters_are_copied_exactly():
    student, teacher = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    student.num_batches_tracked.fill_(2**40 + 1)
    ema_update(teacher, student, 0.99)
    assert teacher.num_batches_tracked.dtype == torch.int64
    assert teacher.num_batches_tracked == 2**40 + 1


def test_ema_may_leave_the_buffers_and_refuses_what_does_not_fit():
    student, teacher = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    student.running_mean.fill_(3.0)
    ema_update(teacher, student, 0.5, buffers="keep")
    assert teacher.running_mean.tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match=r"`momentum` must be in \[0, 1\], got 1.5"):
        ema_update(teacher, student, 1.5)
    with pytest.raises(ValueError, match=r"differ in \['bias'\]"):
        ema_update(nn.Linear(2, 2, bias=False), nn.Linear(2, 2), 0.5)
    with pytest.raises(ValueError, match=r"shape \(3, 2\) in the teacher and \(2, 2\)"):
        ema_update(nn.Linear(2, 3, bias=False), nn.Linear(2, 2, bias=False), 0.5)


def test_a_teacher_in_half_precision_follows():
    student, teacher = nn.Linear(2, 2), nn.Linear(2, 2).bfloat16()
    ema_update(teacher, student, 0.0)
    torch.testing.assert_close(teacher.weight.data, student.weight.data.bfloat16())


@pytest.mark.parametrize(("accumulate", "updates"), [(1, 8), (2, 4), (4, 2)])
def test_the_teacher_moves_once_per_optimizer_step(tmp_path, accumulate, updates):
    module = Plain()
    train(tmp_path, module, [TeacherStudentCallback()], accumulate_grad_batches=accumulate)
    assert module.pair.seen == [(step, updates) for step in range(updates)]
    for before, after in itertools.pairwise(module.pair.trail):
        assert not torch.equal(before, after)


def test_a_run_of_steps_has_a_schedule_over_all_of_them(tmp_path):
    module = Plain()  # epochs of 4 steps: Lightning sets `max_epochs` to -1
    train(tmp_path, module, [TeacherStudentCallback()], max_epochs=None, max_steps=10)
    assert module.pair.seen == [(step, 10) for step in range(10)]


def test_several_optimizers_count_as_one_step(tmp_path):
    module = Plain(optimizers=2)
    train(tmp_path, module, [TeacherStudentCallback()])
    assert [step for step, _ in module.pair.seen] == list(range(8))


def test_the_teacher_can_move_before_the_step(tmp_path):
    module = Plain()
    start = module.pair.student.weight.detach().clone()
    train(tmp_path, module, [TeacherStudentCallback(update_after_backward=True)], max_steps=2)
    assert len(module.pair.trail) == 2
    assert torch.equal(module.pair.trail[0], start)


def test_the_frequency_counts_optimizer_steps(tmp_path):
    module = Plain()
    train(tmp_path, module, [TeacherStudentCallback(update_frequency=3)])
    assert [step for step, _ in module.pair.seen] == [2, 5]


def test_the_schedule_goes_on_after_a_resume(tmp_path):
    whole = Plain()
    train(tmp_path, whole, [TeacherStudentCallback()])
    first, second = Plain(), Plain()
    trainer = train(tmp_path, first, [TeacherStudentCallback()], max_epochs=1)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    train(tmp_path, second, [TeacherStudentCallback()], ckpt_path=tmp_path / "half.ckpt")
    assert second.pair.seen == whole.pair.seen[4:]


def test_a_schedule_needs_an_end(tmp_path):
    with pytest.raises(
        ValueError, match=r"the Trainer has no end: set `max_steps` or `max_epochs`"
    ):
        train(tmp_path, Plain(), [TeacherStudentCallback()], max_epochs=-1)


def test_a_compiled_teacher_counts_once():
    pair = Pair()
    holder = nn.ModuleDict({"a": torch.compile(pair, backend="eager"), "b": pair})
    assert list(find_teachers(holder)) == ["a"]
    assert find_teachers(holder)["a"] is pair


def test_weight_decay_follows_the_cosine_and_keeps_zero_groups_at_zero(tmp_path):
    module = Plain()
    train(tmp_path, module, [WeightDecayUpdater("cosine", 0.04, 0.4)])
    for step, decays in enumerate(module.decays):
        value = 0.4 + (0.04 - 0.4) * 0.5 * (1 + math.cos(math.pi * step / 8))
        assert decays == pytest.approx([value, value / 2, 0.0])


def test_each_optimizer_counts_its_own_steps(tmp_path):
    module = Plain(optimizers=2)
    train(tmp_path, module, [WeightDecayUpdater("linear", 0.8, 0.0)])
    assert [round(d[0], 6) for d in module.decays] == [round(0.8 - 0.1 * s, 6) for s in range(8)]
    assert module.decays[-1][1] == pytest.approx(module.decays[-1][0])


def test_weight_decay_under_accumulation_and_resume(tmp_path):
    whole, first, second = Plain(), Plain(), Plain()
    settings = {"accumulate_grad_batches": 2}
    train(tmp_path, whole, [WeightDecayUpdater("exponential", 0.1, 0.4)], **settings)
    assert whole.decays[0][0] == pytest.approx(0.02)  # no step yet: the initial value
    assert whole.decays[7][0] == pytest.approx(0.1 * 4 ** (3 / 4))
    trainer = train(
        tmp_path, first, [WeightDecayUpdater("exponential", 0.1, 0.4)], max_epochs=1, **settings
    )
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed = [WeightDecayUpdater("exponential", 0.1, 0.4)]
    train(tmp_path, second, resumed, ckpt_path=tmp_path / "half.ckpt", **settings)
    assert second.decays[-1] == pytest.approx(whole.decays[-1])


def test_weight_decay_of_chosen_groups(tmp_path):
    module = Plain()
    train(tmp_path, module, [WeightDecayUpdater("constant", 0.3, param_group_indices=[1])])
    assert module.decays[-1] == pytest.approx([0.02, 0.3, 0.0])
    with pytest.raises(ValueError, match=r"`param_group_indices` \[7\] do not exist"):
        train(tmp_path, Plain(), [WeightDecayUpdater(param_group_indices=[7])])
    with pytest.raises(ValueError, match=r"`opt_idx` must be in \[0, 1\), got 3"):
        train(tmp_path, Plain(), [WeightDecayUpdater(opt_idx=3)])


def test_weight_decay_says_what_it_takes():
    with pytest.raises(ValueError, match=r"`schedule_type` must be one of .*got 'square'"):
        WeightDecayUpdater("square")
    with pytest.raises(ValueError, match=r"An exponential schedule needs"):
        WeightDecayUpdater("exponential")


def test_a_probe_reads_an_inner_layer_whatever_the_order(tmp_path):
    probe = OnlineProbe(
        name="inner",
        input="pair.student",
        target="label",
        probe=nn.Linear(4, 2),
        loss=nn.CrossEntropyLoss(),
    )
    cache = EmbeddingCache(["pair.student"])
    module = Plain()
    trainer = train(tmp_path, module, [probe, cache], val=True)
    assert "eval/inner_acc" in trainer.callback_metrics
    assert not hasattr(module, "embedding_cache")
    assert cache.embeddings == {}
    assert not module.pair.student._forward_hooks
    module.pair.student(torch.zeros(1, 4))
    assert cache.embeddings == {}


def test_the_cache_says_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match=r"knows no submodule \['layer9'\] in Plain"):
        train(tmp_path, Plain(), [EmbeddingCache(["layer9"])])
    with pytest.raises(ValueError, match=r"`module_names` must be a list"):
        EmbeddingCache("head")


def test_the_cache_leaves_no_hook_after_an_exception(tmp_path):
    class Fails(Plain):
        def training_step(self, batch, batch_idx):
            raise RuntimeError("on purpose")

    module = Fails()
    with pytest.raises(RuntimeError, match="on purpose"):
        train(tmp_path, module, [EmbeddingCache(["head"])])
    assert not module.head._forward_hooks


def test_the_writer_saves_each_epoch_whole(tmp_path):
    writer = OnlineWriter(["embedding", "label"], "rows", during="val")
    module = Plain()
    train(tmp_path, module, [writer], val=True)
    files = sorted(path.name for path in (tmp_path / "rows").iterdir())
    assert files == ["validation_epoch=0.pt", "validation_epoch=1.pt"]
    saved = torch.load(tmp_path / "rows" / files[1], weights_only=True)
    expected = torch.cat([module.pair.student(batch["x"]) for batch in loader(4)])
    torch.testing.assert_close(saved["embedding"], expected)
    assert saved["label"].tolist() == [0, 1, 0, 1]


def test_the_writer_chooses_epochs(tmp_path):
    writer = OnlineWriter("loss", "a", "train", every_k_epochs=2)
    last = OnlineWriter("loss", "b", "train", every_k_epochs=0, save_last_epoch=True)
    train(tmp_path, Plain(), [writer, last], max_epochs=4)
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "train_epoch=0.pt",
        "train_epoch=2.pt",
    ]
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["train_epoch=3.pt"]
    assert torch.load(tmp_path / "b/train_epoch=3.pt", weights_only=True)["loss"].shape == (4,)


def test_the_writer_refuses_unknown_phases_and_reports_failed_files(tmp_path):
    with pytest.raises(ValueError, match=r"`during` must name phases of .*got \['validate'\]"):
        OnlineWriter("loss", "x", "validate")
    (tmp_path / "x").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="x"):
        train(tmp_path, Plain(), [OnlineWriter("loss", "x", "train")])


def test_early_stopping_by_patience_and_milestone(tmp_path):
    stopping = EarlyStopping(mode="min", metric_name="score", patience=2)
    trainer = train(tmp_path, Plain(), [stopping], val=True, max_epochs=9)
    assert trainer.current_epoch == 3  # the score rises from the first epoch on
    missed = EarlyStopping("max", milestones={1: 5.0}, metric_name="score", patience=None)
    assert train(tmp_path, Plain(), [missed], val=True, max_epochs=9).current_epoch == 2
    reached = EarlyStopping("max", milestones={1: 1.0}, metric_name="score", patience=None)
    assert train(tmp_path, Plain(), [reached], val=True, max_epochs=3).current_epoch == 3


def test_early_stopping_counts_nan_as_no_improvement_and_keeps_its_state():
    stopping = EarlyStopping(patience=3)
    decisions = [stopping.should_stop(v, s) for s, v in enumerate([1.0, math.nan, 0.5, math.nan])]
    assert decisions == [False] * 4
    other = EarlyStopping(patience=3)
    other.load_state_dict(stopping.state_dict())
    assert (other.best, other.wait) == (0.5, 1)
    with pytest.raises(ValueError, match=r"`mode` must be 'min' or 'max', got 'up'"):
        EarlyStopping("up")


@pytest.mark.parametrize("after_validation", [True, False])
def test_milestones_stop_a_run_that_is_late(tmp_path, after_validation):
    late = EpochMilestones({1: 3.0}, contains="sco", after_validation=after_validation)
    assert train(tmp_path, Plain(), [late], val=True, max_epochs=4).current_epoch == 2
    fine = EpochMilestones({1: 3.0}, "score", direction="min", after_validation=after_validation)
    assert train(tmp_path, Plain(), [fine], val=True, max_epochs=3).current_epoch == 3


def test_milestones_name_what_is_missing(tmp_path):
    with pytest.raises(
        ValueError, match=r"EpochMilestones found no metric 'acc'; there are \['score'\]"
    ):
        train(tmp_path, Plain(), [EpochMilestones({0: 1.0}, "acc")], val=True)
    with pytest.raises(ValueError, match=r"no metric contains 'acc'"):
        train(tmp_path, Plain(), [EpochMilestones({0: 1.0}, contains="acc")], val=True)
    with pytest.raises(ValueError, match=r"Give one of `monitor` and `contains`"):
        EpochMilestones({0: 1.0})
    lenient = EpochMilestones({0: 1.0}, "acc", strict=False)
    assert train(tmp_path, Plain(), [lenient], val=True).current_epoch == 2


def test_the_best_value_for_a_search(tmp_path):
    least, most = HPMetricLogger("score"), HPMetricLogger("score", mode="max")
    module = Plain()
    train(tmp_path, module, [least, most], val=True, max_epochs=3)
    assert (least.best, most.best, module.hp_metric) == (0.0, 2.0, 2.0)
    with pytest.raises(ValueError, match=r"HPMetricLogger found no metric 'x'"):
        train(tmp_path, Plain(), [HPMetricLogger("x")], val=True)
