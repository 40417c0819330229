"""A run on disk: atomic files, identity, directories."""

import dataclasses
import json
import os
import subprocess
import sys
import time

import pytest
from spt_registry.run import (
    atomic_file,
    atomic_write_json,
    atomic_write_text,
    is_global_zero,
    open_run_dir,
    resolve_identity,
)
from spt_registry.run.files import flatten, to_json


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    atomic_write_text(path, "old")
    with pytest.raises(RuntimeError, match="half way"), atomic_file(path) as file:  # noqa: PT012
        file.write(b"new")
        raise RuntimeError("half way")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_rewrite_is_on_the_disk_before_its_name_is_and_so_is_the_name(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def record(handle):
        done.append(os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", record)
    monkeypatch.setattr(os, "replace", lambda *a: done.append("rename") or replace(*a))
    atomic_write_text(tmp_path / "file", "text")
    assert done[0].startswith(f"{tmp_path}/.file.")
    assert done[1:] == ["rename", str(tmp_path)]


def test_the_umask_decides_who_may_read(tmp_path):
    before = os.umask(0o022)
    try:
        atomic_write_text(tmp_path / "file", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_a_killed_writer_never_leaves_half_a_file(tmp_path):
    program = (
        "import itertools, sys\n"
        "from spt_registry.run import atomic_write_json\n"
        "for i in itertools.count():\n"
        "    atomic_write_json(sys.argv[1], {'i': i, 'filling': 'x' * 200000})\n"
        "    if i == 3: print('going', flush=True)\n"
    )
    path = tmp_path / "file.json"
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE
        ) as process:
            process.stdout.readline()
            process.kill()
        assert len(json.loads(path.read_text())["filling"]) == 200000


def test_what_json_lacks_has_a_form(tmp_path):
    import numpy as np

    value = {1: float("nan"), "b": (True, None), "c": np.float32(0.5), "d": {3}, "e": object}
    atomic_write_json(tmp_path / "x.json", value)
    read = json.loads((tmp_path / "x.json").read_text())
    assert read == {"1": "nan", "b": [True, None], "c": 0.5, "d": [3], "e": "<class 'object'>"}
    assert to_json(float("-inf")) == "-inf"
    assert flatten({"a": {}, "b": [{"c": 1}]}) == {"a": {}, "b.0.c": 1}


@pytest.mark.parametrize(
    ("environ", "given", "expected", "launcher"),
    [
        ({"SLURM_JOB_ID": "99999"}, None, "99999", "slurm"),
        ({"SLURM_JOB_ID": "99999", "SLURM_ARRAY_TASK_ID": "3"}, None, "99999_3", "slurm"),
        ({"TORCHELASTIC_RUN_ID": "abc123"}, None, "abc123", "torchrun"),
        ({"SLURM_JOB_ID": "99999"}, "mine", "mine", "explicit"),
    ],
)
def test_identity_comes_from_the_launcher(environ, given, expected, launcher):
    identity = resolve_identity(environ, given)
    assert (identity.run_id, identity.launcher) == (expected, launcher)


def test_a_local_id_is_random_and_torchruns_default_is_none():
    first = resolve_identity({"TORCHELASTIC_RUN_ID": "none"})
    assert first.launcher == "local"
    assert len(first.run_id) == 12
    assert first.run_id != resolve_identity({}).run_id


@pytest.mark.parametrize("run_id", ["", "../up", "a/b", "-x", "x" * 129, "a b"])
def test_an_unsafe_id_is_refused(run_id):
    with pytest.raises(ValueError, match="`run_id` must be at most 128 letters"):
        resolve_identity({}, run_id)


def test_rank_zero_is_known_from_the_launcher():
    assert is_global_zero({})
    assert is_global_zero({"RANK": "0", "LOCAL_RANK": "3"})
    assert not is_global_zero({"SLURM_PROCID": "2"})


def test_a_restarted_job_finds_its_directory_and_a_recycled_id_does_not(tmp_path):
    slurm = {"SLURM_JOB_ID": "7", "SLURM_CLUSTER_NAME": "one"}
    first = open_run_dir(tmp_path, resolve_identity(slurm), now=1e9)
    assert not first.resumed
    assert first.path.parent.parent.parent == tmp_path / "runs"
    assert json.loads((first.path / "run_meta.json").read_text())["run_id"] == "7"
    again = open_run_dir(tmp_path, resolve_identity({**slurm, "SLURM_RESTART_COUNT": "1"}))
    assert (again.path, again.resumed) == (first.path, True)
    recycled = open_run_dir(tmp_path, resolve_identity(slurm))
    assert recycled.path != first.path
    other = {**slurm, "SLURM_CLUSTER_NAME": "two", "SLURM_RESTART_COUNT": "1"}
    assert open_run_dir(tmp_path, resolve_identity(other), now=1.1e9).path != recycled.path


def test_a_recycled_number_is_known_by_its_restarts_and_by_its_age(tmp_path):
    def start(restarts):
        slurm = {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(restarts)}
        return open_run_dir(tmp_path, resolve_identity(slurm))

    old = start(0)
    assert [start(i).path for i in (1, 2)] == [old.path, old.path]
    # the number is used again, and the new job's first start died before it came here
    new = start(1)
    assert not new.resumed
    assert new.path != old.path
    long_ago = time.time() - 40 * 86400
    os.utime(new.path, (long_ago, long_ago))
    assert not start(2).resumed


def test_the_runs_of_one_job_are_told_apart(tmp_path):
    slurm = resolve_identity({"SLURM_JOB_ID": "7"})
    again = resolve_identity({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"})
    names = ("pretrain", "finetune")
    first = [
        open_run_dir(tmp_path, dataclasses.replace(slurm, slot=name), now=1e9) for name in names
    ]
    assert first[0].path != first[1].path
    os.utime(first[0].path)
    found = [open_run_dir(tmp_path, dataclasses.replace(again, slot=name)) for name in names]
    assert [place.path for place in found] == [place.path for place in first]


def test_a_chosen_id_is_found_again_even_after_the_cache_moved(tmp_path):
    first = open_run_dir(tmp_path / "a", resolve_identity({}, "mine"))
    (tmp_path / "a").rename(tmp_path / "b")
    again = open_run_dir(tmp_path / "b", resolve_identity({}, "mine"))
    assert again.resumed
    assert again.path.relative_to(tmp_path / "b") == first.path.relative_to(tmp_path / "a")


def test_a_torn_entry_gives_a_new_directory(tmp_path):
    first = open_run_dir(tmp_path, resolve_identity({}, "mine"), now=1e9)
    (tmp_path / ".runs_by_id" / "explicit-mine.json").write_text('{"run_')
    again = open_run_dir(tmp_path, resolve_identity({}, "mine"))
    assert not again.resumed
    assert again.path != first.path


def test_a_cache_dir_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        OSError, match=r"cache directory '.*file/runs' cannot be written \(Not a dir"
    ):
        open_run_dir(tmp_path / "file" / "runs", resolve_identity({}))
