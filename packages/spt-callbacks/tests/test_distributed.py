"""Two real processes: averaged probe gradients, queues gathered at snapshots, FSDP2 on the CPU,

mixed precision, accumulation, compiled modules, several loaders and inference mode.
"""

import os
import sys
from pathlib import Path

import lightning as pl
import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import ModelParallelStrategy
from spt_callbacks import (
    Alignment,
    AlphaReQ,
    CLIPZeroShot,
    FeatureStd,
    ImageRetrieval,
    LiDAR,
    MeanCosine,
    OnlineKNN,
    OnlineProbe,
    OnlineProbeSweep,
    OnlineQueue,
    RankMe,
    Uniformity,
    queues_of,
)
from spt_callbacks.queue import Queues
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler

sys.path.insert(0, str(Path(__file__).parent))
from callback_ranks import run_ranks

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

SGD = {"type": "SGD", "lr": 1}
SHARDS_ON_CPU = hasattr(torch.cpu.Stream, "record_event")  # torch 2.6 does not
shards = pytest.mark.skipif(not SHARDS_ON_CPU, reason="this torch does not shard on a CPU")


class Watched(pl.LightningModule):
    """Its features are its inputs, so what a probe sees is known; a layer is there to be sharded."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(7)
        self.layer = nn.Linear(4, 4)

    def configure_model(self):
        if isinstance(self.trainer.strategy, ModelParallelStrategy):
            from torch.distributed.fsdp import fully_shard

            fully_shard(self.layer, mesh=self.device_mesh["data_parallel"])

    def training_step(self, batch, batch_idx):
        hidden = self.layer(batch["x"])
        return {"loss": hidden.square().mean(), "embedding": batch["x"], "hidden": hidden}

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        return {"embedding": batch["x"], "hidden": self.layer(batch["x"])}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Counted:
    """Counts collectives while a callback works on a training batch."""

    NAMES = ("all_reduce", "broadcast", "all_gather", "all_gather_into_tensor", "barrier")

    def __init__(self, callbacks):
        self.found = {callback.state_key: [] for callback in callbacks}
        for callback in callbacks:
            inner = callback.on_train_batch_end

            def wrapped(*args, inner=inner, name=callback.state_key):
                originals = {n: getattr(dist, n) for n in self.NAMES}
                calls = []
                for n, function in originals.items():
                    setattr(dist, n, lambda *a, n=n, f=function, **k: (calls.append(n), f(*a, **k)))
                try:
                    inner(*args)
                finally:
                    for n, function in originals.items():
                        setattr(dist, n, function)
                self.found[name].append(calls)

            callback.on_train_batch_end = wrapped


def rows():
    generator = torch.Generator().manual_seed(0)
    return [
        {"x": torch.randn(4, generator=generator) + 0.1 * (i % 2), "label": i % 2, "sample_idx": i,
         "image": i // 2}
        for i in range(16)
    ]  # fmt: skip


def loader_for(data, world_size, batch_size):
    """A loader of this rank's share; the sampler repeats rows so that all ranks have as many."""
    sampler = None
    if world_size > 1:
        sampler = DistributedSampler(data, world_size, int(os.environ["RANK"]), shuffle=False)
    return DataLoader(data, batch_size=batch_size // world_size, sampler=sampler)


def callbacks_for(world_size):
    bank = loader_for(rows()[:7], world_size, 4)
    return [
        OnlineProbe(name="p", probe=nn.Linear(4, 2), loss=nn.CrossEntropyLoss(), optimizer=SGD),
        OnlineProbe(name="h", input="hidden", probe=nn.Linear(4, 2), loss=nn.CrossEntropyLoss()),
        OnlineProbeSweep("s", num_outputs=2, rates=(0.5, 2.0)),
        OnlineKNN(name="k", queue_length=64, k=7, temperature=9.0, save_queues=True),
        RankMe(queue_length=64),
        AlphaReQ(queue_length=64, ranks=(1, 4)),
        FeatureStd(queue_length=64),
        MeanCosine(queue_length=64),
        Uniformity(queue_length=64),
        LiDAR(queue_length=64, group="image"),
        Alignment(queue_length=64, group="label"),
        OnlineQueue("sample_idx", 64, save_queues=True),
        ImageRetrieval(name="r", queries={0: {"relevant": [2, 4, 6]}, 1: {"relevant": [3, 5]}}),
        OnlineKNN(
            "b",
            k=3,
            temperature=9.0,
            bank_loader=bank,
            encode=lambda _, batch: {"embedding": batch["x"]},
        ),
        CLIPZeroShot(
            "c",
            "embedding",
            "label",
            ["0", "1"],
            None,
            nn.EmbeddingBag(2, 4, _weight=torch.eye(2, 4)),
            lambda names: torch.tensor([[int(name)] for name in names]),
        ),
    ]


NAMES = (
    "eval/k_acc", "eval/p_acc", "eval/s_acc", "train/p_loss", "train/s_loss", "rankme", "alpha_req",
    "feature_std", "mean_cosine", "uniformity", "lidar", "eval/r_map", "eval/r_p5", "eval/b_acc",
    "eval/c_acc",
)  # fmt: skip


def fit(folder, world_size, strategy="ddp"):
    # ranks begin apart: the probe must be that of rank 0 everywhere
    torch.manual_seed(int(os.environ.get("RANK", 0)) + 1)
    callbacks = callbacks_for(world_size)
    counted = Counted(callbacks)
    saver = ModelCheckpoint(folder / f"best{world_size}{strategy}", monitor="rankme", mode="max")
    if strategy == "fsdp":
        strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
        saver = None
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=world_size,
        strategy=strategy if world_size > 1 else "auto",
        max_epochs=2,
        callbacks=[*callbacks, *([saver] if saver else [])],
        logger=False,
        enable_checkpointing=saver is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
    loader, val = loader_for(rows(), world_size, 8), loader_for(rows()[:13], world_size, 8)
    module = Watched()
    trainer.fit(module, loader, val)
    weight = module.layer.weight
    gathered = queues_of(trainer).snapshot(("sample_idx",), 64)[0]
    newest = queues_of(trainer).snapshot(("sample_idx",), 8 // world_size, by_age=True)[0]
    result = {
        "probe": callbacks[0].module.state_dict(),
        "sweep": callbacks[2].heads.state_dict(),
        "metrics": {name: float(trainer.callback_metrics[name]) for name in NAMES},
        "collectives": counted.found,
        "gathered": gathered,
        "newest": newest,
        "own": callbacks[11].newest(),
        "weight": (weight.full_tensor() if hasattr(weight, "full_tensor") else weight).detach(),
    }
    if world_size > 1:
        result["ragged"] = ragged()
    if saver is None:
        return result
    path = folder / f"queues{world_size}.ckpt"
    trainer.save_checkpoint(path)
    for start, length in (("same", 64), ("shrunk", 3)):
        queue = OnlineQueue("sample_idx", 64, save_queues=True)
        queue.queue_length = length
        again = pl.Trainer(
            accelerator="cpu", devices=world_size, strategy=strategy if world_size > 1 else "auto",
            callbacks=[queue], logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
            default_root_dir=folder,
        )  # fmt: skip
        queue.__class__ = type("Named", (OnlineQueue,), {"state_key": callbacks[11].state_key})
        again.validate(Watched(), val, ckpt_path=path, verbose=False)
        result[start] = queue.newest()
    return result


def mixed_callbacks():
    torch.manual_seed(int(os.environ.get("RANK", 0)) + 1)
    return [
        OnlineProbe(name="p", probe=nn.Linear(4, 2), loss=nn.CrossEntropyLoss(), optimizer=SGD),
        OnlineProbe(name="h", input="hidden", probe=nn.Linear(4, 2), loss=nn.CrossEntropyLoss(),
                    optimizer=SGD, accumulate_grad_batches=2, gradient_clip_val=0.5),
        OnlineKNN(name="k", queue_length=64, k=7, temperature=9.0),
        RankMe("rankme", "hidden", queue_length=64),
        LiDAR(queue_length=64, group="image"),
    ]  # fmt: skip


def mixed(folder, world_size, kind, callbacks):
    """A compiled module in mixed precision with accumulation and two validation loaders."""
    scaler = torch.amp.GradScaler("cpu") if kind == "16-mixed" else None
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=world_size,
        strategy="ddp" if world_size > 1 else "auto",
        plugins=[MixedPrecision(kind, "cpu", scaler)],
        accumulate_grad_batches=2,
        max_epochs=4,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
    loaders = [loader_for(rows()[:n], world_size, 8) for n in (13, 10)]
    module = Watched()
    compiled = torch.compile(module, backend="eager")
    trainer.fit(compiled, loader_for(rows(), world_size, 8), loaders)
    result = {"weight": module.layer.weight.detach(), "steps": trainer.global_step}
    if callbacks:
        fitted = {key: float(value) for key, value in trainer.callback_metrics.items()}
        validated = trainer.validate(module, loaders, verbose=False)  # in inference mode
        result |= {
            "p": callbacks[0].module.state_dict(),
            "h": callbacks[1].module.state_dict(),
            "kept": str(queues_of(trainer).rings["hidden"].rows.dtype),
            "fitted": {key: fitted[key] for key in sorted(fitted) if not key.endswith("_step")},
            "validated": {key: value for found in validated for key, value in found.items()},
        }
    return result


def ragged():
    """What all ranks hold if one appended fewer rows than the other."""
    rank = dist.get_rank()
    queues = Queues()
    queues.request(("a", "b"), 4, "test")
    for step, n in enumerate((3, 0, 1 + 2 * rank)):
        a = torch.arange(n) + 10 * step + 100 * rank
        queues.append(step, {"a": a, "b": -a.double()}, {})
    return torch.stack(queues.snapshot(("a", "b"), 4))


def worker(rank, folder):
    torch.set_num_threads(1)
    for strategy in ("ddp", "fsdp") if SHARDS_ON_CPU else ("ddp",):
        torch.save(fit(Path(folder), 2, strategy), f"{folder}/{strategy}{rank}.pt")
    for kind in ("bf16-mixed", "16-mixed"):
        found = [mixed(folder, 2, kind, callbacks) for callbacks in ([], mixed_callbacks())]
        torch.save(found, f"{folder}/{kind}{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where two processes left what they found with each strategy."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(__file__, folder)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process finds."""
    return fit(tmp_path_factory.mktemp("alone"), 1)


@pytest.mark.filterwarnings("ignore:.*callbacks used to create.*")
@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp", marks=shards)])
def test_two_ranks_agree_with_one_process(folder, alone, strategy):
    first, second = (
        torch.load(folder / f"{strategy}{rank}.pt", weights_only=True) for rank in (0, 1)
    )
    for part in ("probe", "sweep"):
        for key, value in alone[part].items():
            torch.testing.assert_close(first[part][key], value, rtol=1e-4, atol=1e-5)
            assert torch.equal(first[part][key], second[part][key])
    torch.testing.assert_close(first["weight"], alone["weight"])
    assert first["metrics"] == second["metrics"]
    accuracies = [value for name, value in alone["metrics"].items() if name.endswith("acc")]
    assert all(0 < value < 1 for value in accuracies), alone["metrics"]
    assert first["metrics"] == pytest.approx(alone["metrics"], rel=1e-4)

    for key, steps in first["collectives"].items():
        if key.startswith("OnlineProbeSweep"):  # its heads are made at the first batch
            steps[0] = [name for name in steps[0] if name != "broadcast"]
        expected = ["all_reduce"] if key.startswith("OnlineProbe") else []
        assert steps == [expected] * 4, key  # one flat reduction per probe, none for queues

    # two epochs of 16 rows: none lost, none twice, and each rank holds what it saw
    assert sorted(first["gathered"].tolist()) == sorted([*range(16)] * 2)
    assert torch.equal(first["gathered"], second["gathered"])
    assert torch.equal(torch.cat([first["own"], second["own"]]), first["gathered"])
    assert sorted(first["newest"].tolist()) == list(range(8, 16))
    newest = [0, 1, 2, 20, 102, 120, 121, 122]
    for rank in (first, second):
        assert rank["ragged"].tolist() == [newest, [-i for i in newest]]
    if strategy == "ddp":
        for rank in (first, second):
            assert rank["same"].tolist() == rank["own"].tolist()
            assert rank["shrunk"].tolist() == rank["own"].tolist()[-3:]


@pytest.mark.parametrize("kind", ["bf16-mixed", "16-mixed"])
def test_two_ranks_agree_in_mixed_precision(folder, tmp_path, kind):
    (bare, first), (_, second) = (
        torch.load(folder / f"{kind}{rank}.pt", weights_only=True) for rank in (0, 1)
    )
    assert first["steps"] == bare["steps"] == 4
    assert torch.equal(first["weight"], bare["weight"])
    assert torch.equal(first["weight"], second["weight"])
    assert not torch.equal(first["weight"], Watched().layer.weight)
    alone = mixed(tmp_path, 1, kind, mixed_callbacks())
    # the layer's gradients are rounded differently on half a batch
    for probe, tolerance in (("p", 1e-5), ("h", 2e-2)):
        for key, value in alone[probe].items():
            torch.testing.assert_close(first[probe][key], value, rtol=tolerance, atol=tolerance)
            assert torch.equal(first[probe][key], second[probe][key])
    assert first["kept"] == {"bf16-mixed": "torch.bfloat16", "16-mixed": "torch.float16"}[kind]
    for part in ("fitted", "validated"):
        assert first[part] == second[part]
        assert first[part] == pytest.approx(alone[part], rel=2e-2)
    for name in ("p", "h", "k"):
        found = first["validated"]
        parts = [found[f"eval/{name}_acc/dataloader_idx_{loader}"] for loader in (0, 1)]
        assert found[f"eval/{name}_acc"] == pytest.approx((13 * parts[0] + 10 * parts[1]) / 23)
        assert found[f"eval/{name}_acc"] == first["fitted"][f"eval/{name}_acc"]
