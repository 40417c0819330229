"""Two real ranks with loader workers: shares, keys of the draws, exact resume."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from data_ranks import run_ranks

PROGRAM = Path(__file__).parent / "ddp_program.py"
KINDS = ["map", "stream", "shuffle", "plain"]
pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two ranks saw."""
    folder = tmp_path_factory.mktemp("ddp")
    run_ranks(PROGRAM, folder)
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_share_each_epoch_out_and_never_draw_alike(ranks, kind):
    for epoch in range(2):
        batches = [seen[kind][6 * epoch : 6 * epoch + 6] for seen in ranks]
        rows = [row for share in batches for batch in share for row in batch]
        assert sorted(x for x, _, _ in rows) == list(range(24))
        assert len({number for _, number, _ in rows}) == 24
        assert len({noise for _, _, noise in rows}) == 24


@pytest.mark.parametrize("kind", KINDS)
def test_epochs_come_in_an_order_of_their_own_with_other_draws_and_the_same_numbers(ranks, kind):
    first = [row for seen in ranks for batch in seen[kind][:6] for row in batch]
    second = [row for seen in ranks for batch in seen[kind][6:] for row in batch]
    if kind != "plain":
        assert [x for x, _, _ in first] != [x for x, _, _ in second]
    assert {x: number for x, number, _ in first} == {x: number for x, number, _ in second}
    assert {noise for _, _, noise in first}.isdisjoint(noise for _, _, noise in second)


@pytest.mark.parametrize("kind", KINDS)
def test_each_rank_goes_on_with_its_very_same_batches(ranks, kind):
    for seen in ranks:
        assert seen[f"{kind} resumed"] == seen[kind][7:]
        assert len(seen[kind]) == 12
