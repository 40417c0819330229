"""Runs of other trackers: read right, and only read."""

import contextlib
import hashlib
import json
import shutil
import sqlite3
import struct
from pathlib import Path

import pytest
from spt_registry import open_registry
from spt_registry.migrate import migrate_into
from spt_registry.migrate.wandb_offline import BLOCK, records

GOLDEN = Path(__file__).parent / "golden"


def fingerprint(folder):
    files = [folder] if folder.is_file() else sorted(folder.rglob("*"))
    return [
        (str(f), f.stat().st_mtime_ns, hashlib.sha256(f.read_bytes()).hexdigest())
        for f in files
        if f.is_file()
    ]


@pytest.fixture
def cache(tmp_path):
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def test_a_wandb_offline_run(cache):
    source = GOLDEN / "wb_offline"
    before = fingerprint(source)
    assert (
        str(migrate_into(cache, source)) == "migrate: 1 written, 0 existing, 0 missing, 0 problems"
    )
    assert fingerprint(source) == before
    registry = open_registry(cache_dir=cache)
    run = registry["w1a2b3"]
    assert (run.status, run.notes) == ("completed", "a note")
    assert set(run.tags) == {"project:proj", "group:g", "x", "y"}
    assert run.hparams == {
        "lr": 0.1, "optim.name": "LARS", "optim.betas.0": 0.9, "optim.betas.1": 0.95,
    }  # fmt: skip
    assert run.summary["best"] == 0.75
    assert (run.summary["loss"], run.summary["big"]) == (0.2, -3)
    assert run.created_at == pytest.approx(1795647080.43, abs=0.01)
    history = registry.history("w1a2b3")
    assert history["loss"].tolist()[:5] == [1, 0.5, pytest.approx(1 / 3), 0.25, 0.2]
    assert history["step"].tolist() == [0, 1, 2, 3, 4, 5]
    assert migrate_into(cache, source).existing == 1
    assert migrate_into(cache, source, overwrite=True).written == 1


def test_a_wandb_file_that_a_crash_tore(cache, tmp_path):
    content = (GOLDEN / "wb_offline" / "run-w1a2b3.wandb").read_bytes()
    whole = len(list(records(content)))
    for end in range(8, len(content), 37):
        assert len(list(records(content[:end]))) < whole
    folder = tmp_path / "wandb" / "offline-run-1"
    folder.mkdir(parents=True)
    (folder / "run-w1a2b3.wandb").write_bytes(content[:1500])
    (folder / "run-bad.wandb").write_bytes(b"something else")
    report = migrate_into(cache, tmp_path / "wandb")
    assert (report.written, len(report.problems)) == (1, 1)
    assert "it does not begin with ':W&B'" in report.problems[0]
    assert open_registry(cache_dir=cache)["w1a2b3"].status == "interrupted"


def test_records_that_span_blocks():
    first, second = b"a" * (BLOCK - 7 - 7 - 3), b"b" * (2 * BLOCK)
    head = b":W&B\xe1\xbe\0"

    def part(kind, data):
        return struct.pack("<IHB", 0, len(data), kind) + data

    log = head + part(1, first) + b"\0\0\0"  # three bytes are too few for a header
    log += part(2, second[: BLOCK - 7]) + part(3, second[: BLOCK - 7]) + part(4, b"b" * 14)
    assert list(records(log)) == [first, second]


def test_an_mlflow_file_store(cache):
    source = GOLDEN / "mlflow_store"
    before = fingerprint(source)
    report = migrate_into(cache, source)
    assert (report.written, report.problems) == (2, [])
    assert fingerprint(source) == before
    registry = open_registry(cache_dir=cache)
    run = registry["df4fa1827ec143c795b890bad5474058"]
    assert (run.status, run.notes) == ("completed", "two lines\nof notes")
    assert run.tags == ("experiment:probe", "stage:dev")
    assert run.hparams == {"lr": "0.1", "optim/name": "LARS"}
    assert run.summary == {"fit/loss": pytest.approx(1 / 3), "acc": 0.6}
    assert (run.created_at, run.ended_at) == (1_700_000_000.0, 1_700_000_009.0)
    history = registry.history(run.run_id)
    assert history["step"].tolist() == [0, 1, 2, 2]
    assert history["acc"].tolist()[2:] == [0.5, 0.6]
    assert [r.status for r in registry.query() if r is not run].count("interrupted") == 1


def legacy(path, rows):
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(
        "CREATE TABLE runs (run_id TEXT PRIMARY KEY, status TEXT, created_at REAL, updated_at REAL,"
        " run_dir TEXT, checkpoint_path TEXT, config TEXT, hparams TEXT, summary TEXT, tags TEXT,"
        " notes TEXT)"
    )
    for row in rows:
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO runs ({', '.join(row)}) VALUES ({marks})", [*row.values()])
    connection.commit()
    return connection


def test_a_legacy_database(cache, tmp_path):
    here, old = cache / "runs" / "20240101" / "000000" / "here", tmp_path / "elsewhere"
    here.mkdir(parents=True)
    old.mkdir()
    row = {
        "run_id": "here", "status": "finished", "created_at": 5.0, "updated_at": 9.0,
        "run_dir": str(here), "hparams": json.dumps({"lr": 0.1}), "config": "broken",
        "summary": json.dumps({"acc": 0.5, "text": "x"}), "tags": json.dumps(["a"]), "notes": "n",
    }  # fmt: skip
    moved = {**row, "run_id": "moved", "run_dir": "/old/runs/20240101/000000/here"}
    rows = [
        row,
        {"run_id": "gone", "run_dir": "/nowhere"},
        {"run_id": "outside", "run_dir": str(old)},
        {"run_id": "climbing", "run_dir": f"{here}/../../../../../elsewhere"},
        {"run_id": "nothing"},
        moved,
    ]
    source = tmp_path / "old.db"
    connection = legacy(source, rows)  # still open: its last rows are in the log
    before = fingerprint(source)
    report = migrate_into(cache, source)
    assert (report.written, report.existing, report.missing) == (1, 1, 1)
    assert len(report.problems) == 3
    assert [path.name for path in old.iterdir()] == []
    assert fingerprint(source) == before
    connection.close()
    run = open_registry(cache_dir=cache)["here"]
    assert (run.status, run.notes, run.tags) == ("completed", "n", ("a",))
    assert (run.hparams, run.summary) == ({"lr": 0.1}, {"acc": 0.5})
    assert (run.created_at, run.updated_at) == (5.0, 9.0)


def test_what_is_no_source(cache, tmp_path):
    with pytest.raises(ValueError, match="neither a registry.db file, nor an MLflow file store"):
        migrate_into(cache, tmp_path)
    (tmp_path / "x.db").write_bytes(b"x" * 5000)
    with pytest.raises(ValueError, match="no registry.db with a table `runs`"):
        migrate_into(cache, tmp_path / "x.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "y.db")) as connection:
        connection.executescript("CREATE TABLE runs (a); INSERT INTO runs VALUES (1)")
    with pytest.raises(ValueError, match=r"has no run_id; it has \['a'\]"):
        migrate_into(cache, tmp_path / "y.db")


def test_a_dry_run_writes_nothing(cache):
    assert migrate_into(cache, GOLDEN / "mlflow_store", dry_run=True).written == 2
    assert list(cache.iterdir()) == []


def test_hostile_ids_and_broken_metadata_stay_inside(cache, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(GOLDEN / "mlflow_store", store)
    for meta in store.glob("*/*/meta.yaml"):
        run_id = meta.parent.name
        text = meta.read_text().replace(f"run_id: {run_id}", "run_id: '../../../../evil'")
        meta.write_text(text)
    broken = next(store.glob("*/*/meta.yaml"))
    broken.write_text("a: [")
    report = migrate_into(cache, store)
    assert len(report.problems) == 1
    assert not list(tmp_path.rglob("evil"))
    assert all(path.is_relative_to(cache / "runs") for path in cache.rglob("sidecar.json"))
