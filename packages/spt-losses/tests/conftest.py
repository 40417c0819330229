"""The cases of all losses, golden values, and one pool of ranks for the whole session."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

HERE = Path(__file__).parent
SPLITS = {"2 equal": [4, 4], "4 equal": [2, 2, 2, 2], "4 unequal": [3, 1, 2, 2]}


def load_cases():
    spec = importlib.util.spec_from_file_location("spt_losses_cases", HERE / "cases.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


CASES = load_cases()


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", CASES.CASES, ids=[case.name for case in CASES.CASES])
    if "split" in metafunc.fixturenames:
        metafunc.parametrize("split", list(SPLITS))


@pytest.fixture(scope="session")
def cases():
    return CASES


@pytest.fixture(scope="session")
def pool(tmp_path_factory):
    """Averages over ranks of all cases, by split, from four processes started once."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [json.dumps(list(SPLITS.values())), str(folder)]
    ranks = [
        subprocess.Popen(
            [sys.executable, str(HERE / "cases.py"), str(rank), *command],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(4)
    ]
    errors = [process.communicate(timeout=400)[1] for process in ranks]
    for process, error in zip(ranks, errors, strict=True):
        assert process.returncode == 0, error
    return {
        name: (counts, torch.load(folder / f"split{index}.pt", weights_only=True))
        for index, (name, counts) in enumerate(SPLITS.items())
    }


class Golden:
    """Inputs and outputs of official code."""

    def __init__(self, name):
        with np.load(HERE / "golden" / f"{name}.npz", allow_pickle=False) as file:
            self.arrays = dict(file)

    def __getitem__(self, name):
        return torch.as_tensor(self.arrays[name])

    def param(self, name):
        return self.arrays[f"param_{name}"].item()

    def inputs(self, *names):
        return [self[f"in_{name}"].requires_grad_() for name in names]

    def check(self, name, value, rtol=1e-10):
        """Compare within ``rtol`` of the array's largest entry."""
        expected = self[name]
        assert value.shape == expected.shape
        error = (value.detach() - expected).abs().max().item()
        assert error <= rtol * max(expected.abs().max().item(), 1e-300), (name, error)


@pytest.fixture(scope="session")
def golden():
    return Golden
