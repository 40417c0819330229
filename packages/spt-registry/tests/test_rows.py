"""A sidecar's row: the fast way, through SQLite, and the slow one give the same or refuse."""

import json
import sqlite3

import pytest
from spt_registry.index.rows import _cut, _parsed, as_columns
from spt_registry.sidecar import BrokenSidecarError

PLAIN = {
    "run_id": "r",
    "tags": ["a", "b{"],
    "config": {"nested": [1, {"x": None}]},
    "hparams": {"lr": 0.1, "on": True, "none": None, "name": "ü \U0001f600 'q' \"d\" a\\b"},
    "summary": {"acc": 0.30000000000000004, "big": 2**70, "small": -1e-300, "nan": "nan"},
}


@pytest.fixture
def connection():
    opened = sqlite3.connect(":memory:")
    yield opened
    opened.close()


def decoded(found):
    sidecar, hparams, summary = found
    return sidecar, json.loads(hparams), json.loads(summary)


@pytest.mark.parametrize("indent", [None, 2])
def test_the_fast_way_reads_what_the_slow_one_does(connection, indent):
    text = json.dumps(PLAIN, indent=indent, ensure_ascii=False)
    sidecar, hparams, summary = decoded(_cut(connection, text))
    assert (hparams, summary) == (PLAIN["hparams"], PLAIN["summary"])
    slow = decoded(_parsed(text))
    assert (slow[1], slow[2]) == (hparams, summary)
    assert {key: slow[0][key] for key in sidecar} == sidecar
    assert set(slow[0]) - set(sidecar) == {"hparams", "summary"}
    escaped = as_columns(connection, json.dumps(PLAIN), {})
    assert as_columns(connection, text, {})[:8] == escaped[:8]


@pytest.mark.parametrize(
    "change",
    [
        {"hparams": {"a": {"b": 1}}},
        {"hparams": {"a": [1]}},
        {"summary": {"a": {}}},
        {"summary": {"a": float("nan")}},
        {"summary": {"a": float("-inf")}},
        {"notes": "lone \ud800"},
        {"notes": "zero \0"},
        {"hparams": {"text": "a {brace}"}},
        {"config": [[[]]] * 200},
        {"hparams": None},
        {"hparams": 3},
    ],
)
def test_what_sqlite_might_read_otherwise_goes_the_slow_way(connection, change):
    assert _cut(connection, json.dumps({**PLAIN, **change})) is None


BODY = '"run_id": "r", "hparams": {"a": 1}, "summary": {"b": 2}'


@pytest.mark.parametrize(
    "text",
    [
        f"{{{BODY},}}",
        f"{{{BODY}}} // comment",
        f"{{{BODY}, x: 1}}",
        f"{{{BODY}, 'x': 1}}",
        f'{{{BODY}, "x": +1}}',
        f'{{{BODY}, "x": 0x10}}',
        f'{{{BODY}, "x": .5}}',
        f'{{{BODY}, "x": "two\nlines"}}',
        f"{{{BODY}}}\0",
        f"\ufeff{{{BODY}}}",
        f"{{{BODY}}} {{}}",
        f"{{{BODY}",
        "",
    ],
)
def test_what_is_no_json_is_refused_both_ways(connection, text):
    with pytest.raises(BrokenSidecarError, match="it is no JSON"):
        _parsed(text)
    with pytest.raises(BrokenSidecarError, match="it is no JSON"):
        as_columns(connection, text, {})
