"""Two real ranks with loader workers: shares, keys of the draws, exact resume."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "ddp_program.py"
pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two ranks saw."""
    folder = tmp_path_factory.mktemp("ddp")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {
        **os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, PROGRAM, folder],
            env={**common, "LOCAL_RANK": str(rank), "NODE_RANK": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("kind", ["map", "stream"])
def test_ranks_share_each_epoch_out_and_never_draw_alike(ranks, kind):
    for epoch in range(2):
        batches = [seen[kind][6 * epoch : 6 * epoch + 6] for seen in ranks]
        rows = [row for share in batches for batch in share for row in batch]
        assert sorted(x for x, _, _ in rows) == list(range(24))
        assert len({number for _, number, _ in rows}) == 24
        assert len({noise for _, _, noise in rows}) == 24


@pytest.mark.parametrize("kind", ["map", "stream"])
def test_epochs_come_in_another_order_with_other_draws_and_the_same_numbers(ranks, kind):
    first = [row for seen in ranks for batch in seen[kind][:6] for row in batch]
    second = [row for seen in ranks for batch in seen[kind][6:] for row in batch]
    assert [x for x, _, _ in first] != [x for x, _, _ in second]
    assert {x: number for x, number, _ in first} == {x: number for x, number, _ in second}
    assert {noise for _, _, noise in first}.isdisjoint(noise for _, _, noise in second)


@pytest.mark.parametrize("kind", ["map", "stream"])
def test_each_rank_goes_on_with_its_very_same_batches(ranks, kind):
    for seen in ranks:
        assert seen[f"{kind} resumed"] == seen[kind][7:]
        assert len(seen[kind]) == 12
