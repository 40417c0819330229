"""Scanning and querying, from Python and from the command line."""

import os
import shutil
import subprocess
import sys
import time

import pytest
from spt_registry import RunWriter
from spt_registry import open_registry as open_with_memory
from spt_registry.run import open_run_dir, resolve_identity


def make(cache_dir, run_id, *, status="completed", tags=(), hparams=None, **metrics):
    place = open_run_dir(cache_dir, resolve_identity({}, run_id))
    writer = RunWriter(place.path, run_id, tags=tags, hparams=hparams)
    writer.log_metrics(metrics, step=3)
    if status == "running":
        writer.save()
        writer._flusher.stop()
    else:
        writer.finalize(status)
    return place.path


@pytest.fixture
def cache(tmp_path):
    make(tmp_path, "alpha", tags=["x"], hparams={"optim": {"lr": 0.1}}, acc=0.5)
    make(tmp_path, "beta", tags=["x", "sweep:1"], hparams={"optim": {"lr": 0.3}}, acc=0.9)
    make(tmp_path, "gamma", status="failed", acc=float("nan"))
    make(tmp_path, "delta", status="running", tags=["x_"], loss=1.0)
    return tmp_path


def open_registry(**kwargs):
    return open_with_memory(scan_ttl_s=0, **kwargs)


def ids(records):
    return [record.run_id for record in records]


def test_queries(cache):
    registry = open_registry(cache_dir=cache)
    assert len(registry) == 4
    assert set(ids(registry.query(tag="x"))) == {"alpha", "beta"}
    assert ids(registry.query(status="failed")) == ["gamma"]
    assert ids(registry.query(alive=True)) == ["delta"]
    assert ids(registry.query(hparams={"optim.lr": 0.3})) == ["beta"]
    assert ids(registry.query(sort_by="summary.acc"))[:2] == ["beta", "alpha"]
    assert ids(registry.query(sort_by="acc", descending=False))[:2] == ["alpha", "beta"]
    assert ids(registry.query(sort_by="hparams.optim.lr", limit=1)) == ["beta"]
    assert ids(registry.query(hparams={"optim.lr": 0.1}, limit=1)) == ["alpha"]
    assert registry["al"].run_id == "alpha"
    assert registry.get("nothing") is None
    with pytest.raises(KeyError, match="No run 'nothing'"):
        registry["nothing"]
    assert registry.history("beta")["acc"].tolist() == [0.9]
    table = registry.to_dataframe(tag="x")
    assert set(table["hparams.optim.lr"]) == {0.1, 0.3}


def test_what_differs_among_runs(cache, put):
    put("other", folder="x/other", hparams={"optim.lr": 0.1, "on": True, "seed": None})
    put("same", folder="x/same", hparams={"optim.lr": 0.1, "on": 1, "seed": None})
    registry = open_registry(cache_dir=cache)
    table = registry.compare(["alpha", "beta"])
    assert list(table.columns) == ["alpha", "beta"]
    assert table.to_dict("index") == {"optim.lr": {"alpha": 0.1, "beta": 0.3}}
    assert registry.compare(["other", "same"]).loc["on"].tolist() == [True, 1]  # no number is True
    told = registry.compare(["alpha", "other"])  # not said differs from None
    assert told.index.tolist() == ["on", "seed"]
    assert registry.compare(["alpha", "alpha"]).empty
    with pytest.raises(KeyError, match="No run 'zeta'"):
        registry.compare(["alpha", "zeta"])


def test_columns_of_the_arrow_table_have_one_type_each(cache, put):
    mixed = {"n": 3, "on": True, "big": 2**70, "mixed": "x", "list": [1], "nothing": None}
    put("other", folder="x/other", hparams=mixed)
    put("more", folder="x/more", hparams={**mixed, "mixed": 0.5, "n": 4})
    table = open_registry(cache_dir=cache).to_arrow()
    kinds = {name: str(table.schema.field(name).type) for name in table.column_names}
    assert kinds == {
        "run_id": "string", "status": "string", "alive": "bool", "created_at": "double",
        "updated_at": "double", "run_dir": "string", "checkpoint_path": "string",
        "tags": "list<item: string>", "notes": "string", "hparams.optim.lr": "double",
        "hparams.n": "int64", "hparams.on": "bool", "hparams.big": "double",
        "hparams.mixed": "string", "hparams.list.0": "int64", "hparams.nothing": "string",
        "summary.acc": "double", "summary.loss": "double",
    }  # fmt: skip
    values = dict(zip(table["run_id"].to_pylist(), table["hparams.mixed"].to_pylist(), strict=True))
    assert (values["other"], values["more"], values["alpha"]) == ("x", "0.5", None)


def test_a_silent_run_is_lost(cache):
    (heartbeat,) = cache.glob("runs/*/*/delta/heartbeat")
    os.utime(heartbeat, (time.time() - 1000,) * 2)
    record = open_registry(cache_dir=cache)["delta"]
    assert (record.status, record.alive) == ("lost", False)


def test_a_scan_reads_only_what_changed_and_the_index_may_be_deleted(cache):
    registry = open_registry(cache_dir=cache)
    report = registry.scan()
    assert (report.total_sidecars, report.upserted, report.skipped_unchanged) == (4, 0, 4)
    make(cache, "epsilon")
    assert registry.scan().upserted == 1
    assert registry.scan(full=True).upserted == 5
    (cache / "registry.db").unlink()
    assert len(open_registry(cache_dir=cache)) == 5
    (cache / "registry.db").write_bytes(b"no database" * 100)
    assert len(open_registry(cache_dir=cache)) == 5


def test_broken_and_missing_runs_do_not_stop_the_others(cache):
    (broken,) = cache.glob("runs/*/*/alpha/sidecar.json")
    open_registry(cache_dir=cache)
    broken.write_text('{"run_id": "al')
    (gone,) = cache.glob("runs/*/*/beta")
    shutil.move(gone, cache / "elsewhere")
    report = open_registry(cache_dir=cache, scan=False).scan()
    assert list(report.broken) == [str(broken)]
    assert report.orphaned == 1
    assert open_registry(cache_dir=cache)["beta"].status == "orphaned"
    shutil.move(cache / "elsewhere", gone)
    os.utime(gone / "sidecar.json")
    assert open_registry(cache_dir=cache)["beta"].status == "completed"


def test_a_moved_cache_keeps_its_runs(cache, tmp_path_factory):
    open_registry(cache_dir=cache)
    other = tmp_path_factory.mktemp("other") / "moved"
    shutil.move(cache, other)
    record = open_registry(cache_dir=other)["beta"]
    assert record.run_dir.is_dir()
    assert record.status == "completed"


def test_a_mistyped_cache_dir_is_an_error_and_is_not_made(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no cache directory"):
        open_registry(cache_dir=tmp_path / "typo")
    assert not (tmp_path / "typo").exists()


def test_which_cache_dir(monkeypatch):
    monkeypatch.delenv("SPT_CACHE_DIR", raising=False)
    with pytest.raises(ValueError, match="Which cache directory"):
        open_registry()


def test_readers_and_scanners_do_not_lock_each_other_out(cache):
    program = (
        "import sys\nfrom spt_registry import open_registry\n"
        "for _ in range(15): assert len(open_registry(cache_dir=sys.argv[1])) == 4\n"
    )
    command = [sys.executable, "-c", program, str(cache)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        _, error = process.communicate()
        assert process.returncode == 0, error.decode()
