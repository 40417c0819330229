"""Two processes do what one does: gradients of every method, and several optimizers under DDP."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from spt_methods.catalogue import CATALOGUE

HERE = Path(__file__).parent
METHODS = [
    "BarlowTwins", "BEiT", "BYOL", "CLIP", "CMAE", "CrossMAE", "Data2Vec", "DeiT", "DINO", "DINOv2",
    "DINOv3", "iBOT", "IJEPA", "iGPT", "LeJEPA", "MAE", "MaskFeat", "MIMRefiner", "MoCov2", "MoCov3",
    "MSN", "NEPA", "NNCLR", "PIRL", "SALT", "SigLIP", "SimCLR", "SimMIM", "SimSiam", "SwAV", "TiCO",
    "VICReg", "VICRegL", "VJEPA", "WMSE",
]  # fmt: skip
pytestmark = [pytest.mark.distributed, pytest.mark.slow]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    started = [
        subprocess.Popen(
            [sys.executable, str(HERE / "ranks_program.py"), str(rank), port, str(folder)],
            stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in (-1, 0, 1)
    ]  # fmt: skip
    errors = [process.communicate(timeout=500)[1] for process in started]
    for process, error in zip(started, errors, strict=True):
        assert process.returncode == 0, error[-3000:]
    return [torch.load(folder / f"{name}.pt", weights_only=True) for name in ("one", "two")]


def test_no_method_is_forgotten():
    assert set(METHODS) == {row.method for row in CATALOGUE}


@pytest.mark.parametrize("name", METHODS)
def test_two_ranks_have_the_gradient_of_one_process(results, name):
    one, two = (result[name] for result in results)
    assert one.keys() == two.keys()
    assert len(one) > 5
    for key, value in one.items():
        # timm resamples positions in float32
        torch.testing.assert_close(two[key], value, rtol=1e-5, atol=1e-7, msg=f"{name}: {key}")


@pytest.mark.parametrize("several", [False, True])
def test_two_ranks_train_as_one_process_and_exchange_gradients_only_before_a_step(results, several):
    """Five batches an epoch, a step after two: exchanges after batches 2, 4 and the last one."""
    one, two = (result[f"run {several}"] for result in results)
    for key, value in one["state"].items():
        torch.testing.assert_close(two["state"][key], value)
    assert one["steps"] == two["steps"] == 6
    assert (one["exchanges"], two["exchanges"]) == (0, 6)


@pytest.mark.skipif(
    not hasattr(torch.cpu.Stream, "record_event"), reason="this torch does not shard on a CPU"
)
@pytest.mark.parametrize("several", [False, True])
def test_sharded_training_is_that_of_one_process(results, several):
    """FSDP2, each child sharded by itself and one parameter whole; clipped by `optim` and by the Trainer."""
    one = results[0][f"run {several}"]
    for name in (f"sharded {several}", f"trainer's clip {several}"):
        for key, value in one["state"].items():
            torch.testing.assert_close(results[1][name]["state"][key], value, rtol=1e-4, atol=1e-6)
